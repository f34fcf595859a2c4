"""From the words of a command line to a Recipe, an Execution and a Run."""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from clever_fast.errors import UserError, did_you_mean, find
from clever_fast.models import find_backbone
from clever_fast.options import EXECUTIONS, Execution, Recipe, Run
from clever_fast.pipelines.policies import POLICIES
from clever_fast.recipes import RECIPES, find_recipe

S = TypeVar("S")
OPTIONS = {"folder": "run"}  # fields whose option has another name
RUN_HELP = "Folder of the run: checkpoints, logs and curves. The same command resumes it."
DESCRIPTION = (
    "Pretrain a recipe on a folder of images. --recipe NAME and --execution NAME (fast, plain) choose the values that "
    "the options below override."
)


# YAML takes no surrogates, which stand for bytes that are no UTF-8 in Python's file names
_HIDDEN = {0xDC00 + byte: 0xF0000 + byte for byte in range(128, 256)}
_BACK = {hidden: byte for byte, hidden in _HIDDEN.items()}


class Parser(ArgumentParser):
    """jsonargparse's parser; whole option names only, and errors that are one line with near matches."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def parse_args(self, args: list[str] | None = None, *rest: Any, **options: Any) -> Any:
        """As argparse, with three rules for all options.

        `--flag` alone means `--flag=true`, for every option that is true or false. A list may be written with or
        without its brackets: `--parts all,IR` is `--parts [all,IR]`. A file's name may hold bytes that are no UTF-8.
        """
        words = [word.translate(_HIDDEN) for word in (sys.argv[1:] if args is None else args)]
        hints = {name: getattr(a, "_typehint", None) for a in self._actions for name in a.option_strings}
        for i, word in enumerate(words):
            name, equals, value = word.partition("=")
            last = i + 1 == len(words)
            if hints.get(word) is bool and (last or words[i + 1].lower() not in ("true", "false")):
                words[i] = f"{word}=true"
            elif equals and _is_bare_list(value, hints.get(name)):
                words[i] = f"{name}=[{value}]"
            elif not equals and not last and _is_bare_list(words[i + 1], hints.get(name)):
                words[i + 1] = f"[{words[i + 1]}]"
        values = super().parse_args(words, *rest, **options)
        for key, value in list(values.items()):
            values[key] = _shown(value)
        return values

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        words = " ".join(str(message).translate(_BACK).split())
        if words.startswith("unrecognized arguments:"):
            wrong = words.removeprefix("unrecognized arguments:").split()
            names = [name for action in self._actions for name in action.option_strings]
            words += did_you_mean(wrong[0].split("=")[0], names)
        raise UserError(f"{words} (see {self.prog} --help)")


def _is_bare_list(value: str, hint: Any) -> bool:
    """Whether an option that takes a list is given a value without brackets, and not one that it takes as it is."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if not any(get_origin(kind) in (tuple, list) for kind in kinds) or value[:1] == "[" or value.startswith("--"):
        return False
    single = any(get_origin(kind) not in (tuple, list) and kind is not NoneType for kind in kinds)
    return value != "null" and ("," in value or not single)


def _shown(value: Any) -> Any:
    """A value with the names in it as they were given."""
    if isinstance(value, str):
        return value.translate(_BACK)
    if isinstance(value, Path):
        return Path(str(value).translate(_BACK))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_shown, value))
    return value


def call(function: Callable[..., Any], words: list[str], *, prog: str) -> Any:
    """Call a function with the options of a command line, which are its parameters.

    A parameter without a default is a word without `--`, unless it is keyword-only. A parameter that is a dataclass
    stands for the options that are its fields.
    """
    parser, parameters = Parser(prog=prog), inspect.signature(function).parameters
    groups = {name: p.annotation for name, p in parameters.items() if is_dataclass(p.annotation)}
    named = {name for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    parser.add_function_arguments(function, skip=set(groups) | named, as_group=False, as_positional=True)
    parser.add_function_arguments(function, skip=parameters.keys() - named, as_group=False)
    for group in groups.values():
        parser.add_class_arguments(group)
    values = parser.parse_args(words).as_dict()
    built = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
    return function(**built, **values)


def parse_pretrain(words: list[str]) -> tuple[Recipe, Execution, Run]:
    """Read `pretrain`'s command line; see `parse`."""
    return parse("pretrain", DESCRIPTION, Run, words)


def parse(command: str, description: str, settings: type[S], words: list[str]) -> tuple[Recipe, Execution, S]:
    """Read the command line of a command that takes a recipe, an execution and the fields of `settings`.

    `--recipe` is the name of a recipe or a YAML file, `--execution` the name of an execution; `--config` is a YAML file
    of what `--print_config` prints. What stands on the command line overrides what stands in a file, which overrides
    the recipe of that name.

    Raises:
        UserError: an unknown recipe, option or value.
    """
    name, words = _expand_files(words)
    if name is None and not {"-h", "--help"} & set(words):
        raise UserError("--recipe NAME or FILE is missing; `clever-fast recipes` lists the names")
    base = RECIPES[name or "clever_vits16_in100"]
    values = _parser(command, description, settings, name, base).parse_args(words)
    plain = values.recipe.as_dict()
    plain.pop("base")
    plain["method"]["name"] = base.method.name
    execution, others = values.pop("execution"), {f.name: values[OPTIONS.get(f.name, f.name)] for f in fields(settings)}
    return Recipe.from_dict(plain), Execution(**execution.as_dict()), settings(**others)


def _parser(command: str, description: str, settings: type, name: str | None, base: Recipe) -> Parser:
    parser = Parser(prog=f"clever-fast {command}", description=description)
    parser.add_argument("--config", action="config", help="YAML file of options, as --print_config prints it.")
    parser.add_class_arguments(settings, skip=set(OPTIONS))
    if "folder" in {field.name for field in fields(settings)}:
        parser.add_argument("--run", type=Path, required=True, help=RUN_HELP)
    parser.add_argument(
        "--recipe.base", default=name, help="The recipe that the options override; --recipe NAME is short for it."
    )
    parser.add_class_arguments(Recipe, "recipe", skip={"method", "backbone", "policy"})
    parser.add_argument("--recipe.backbone", type=_backbone, help="The network that is trained.")
    parser.add_argument("--recipe.policy", type=Literal[tuple(POLICIES)], help="The augmentations of each view.")
    parser.add_class_arguments(type(base.method), "recipe.method")
    parser.add_class_arguments(Execution, "execution")
    plain = {"recipe": base.as_dict()}
    del plain["recipe"]["method"]["name"]
    parser.set_defaults(dict(flatten(plain)))
    return parser


def _backbone(name: str) -> str:
    """The type of --recipe.backbone: the name of a backbone, also a former one."""
    return find_backbone(name).name


def _expand_files(words: list[str]) -> tuple[str | None, list[str]]:
    """The base recipe's name, and the words with every --recipe and --config replaced by the options they stand for."""
    name, expanded, files, rest = None, [], [], iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option not in ("--recipe", "--recipe.base", "--execution", "--config"):
            expanded.append(word)
            continue
        value = value if equals else next(rest, "")
        if option == "--config":
            options = read_yaml(value)
        elif option == "--recipe" and Path(value).suffix in (".yaml", ".yml", ".json"):
            content = read_yaml(value)
            options = {"recipe": content.get("recipe", content)}
            files.append(value)
        elif option == "--execution":
            options = {"execution": asdict(find("execution", value, EXECUTIONS))}
        else:
            options = {"recipe": value}
        if isinstance(options.get("recipe"), str):
            options["recipe"] = {"base": options["recipe"]}
        if base := options.get("recipe", {}).pop("base", None):
            name = base
            find_recipe(name)
        expanded = as_words(options) + expanded
    if name is None and files:
        raise UserError(
            f"{files[0]} does not say which recipe it changes: begin it with a line such as "
            "`base: clever_vits16_in100`; `clever-fast recipes` lists the names"
        )
    return name, expanded


def as_words(options: dict[str, Any]) -> list[str]:
    """Nested options as the words of a command line."""
    return [f"--{key}={_as_word(value)}" for key, value in flatten(options)]


def read_yaml(path: str) -> dict[str, Any]:
    """The options of a YAML or JSON file; UserError where there are none."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path!r}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no options: write lines such as `epochs: 100`")
    return content


def flatten(nested: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dictionaries under dotted names."""
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
