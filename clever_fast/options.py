"""What is learned (`Recipe`), how fast (`Execution`), and where it is read and written (`Run`)."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from clever_fast.errors import UserError
from clever_fast.fields import ABOVE_ZERO, BELOW_ONE, COUNT, NOT_NEGATIVE, SEED, SHARE, WITHIN, validate
from clever_fast.import_paths import find, import_path
from clever_fast.methods import METHODS, Method, MethodConfig
from clever_fast.models import BACKBONES, Backbone, find_backbone
from clever_fast.models.vit import antialias_positions
from clever_fast.ops.selection import Kernels
from clever_fast.pipelines.loader_options import LoaderOptions
from clever_fast.pipelines.policies import POLICIES, Policy

RECIPE_BOUNDS = {
    **dict.fromkeys(("global_size", "local_size", "epochs", "batch_size"), COUNT),
    **dict.fromkeys(("max_blur", "base_lr"), ABOVE_ZERO),
    **dict.fromkeys(
        ("local_crops", "warmup_epochs", "min_lr", "weight_decay", "weight_decay_end", "clip_grad"), NOT_NEGATIVE
    ),
    "global_scale": WITHIN,
    "drop_path": BELOW_ONE,
    "seed": SEED,
}
EXECUTION_BOUNDS = {
    **dict.fromkeys(("bucket_mib", "prefetch"), COUNT),
    "threads": NOT_NEGATIVE,
    "hw_decoder_load": SHARE,
}
RUN_BOUNDS = {
    **dict.fromkeys(("log_every", "keep", "stop_after"), COUNT),
    **dict.fromkeys(("save_every", "knn_every"), NOT_NEGATIVE),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that may change the weights. Defaults are those of the released code.

    Args:
        method: what is learned from a batch.
        backbone: the network that is trained.
        drop_path: the student's stochastic depth rate; the teacher's is 0.
        policy: the augmentations of each view: baug, caug or caug_plus, or one of the two-view moco_*.
        global_size: pixels of the two global crops.
        local_size: pixels of the local crops.
        local_crops: how many local crops the student sees.
        global_scale: smallest area of a global crop, as a share of the image's, below 1; null for the policy's own.
        max_blur: largest sigma of the blur, in pixels of a crop; crops of 32 px bear less than the published 2. null
            for the policy's own.
        epochs: passes over the data, those of the warm-up included.
        batch_size: images of one step over all processes together.
        optimizer: adamw, or sgd with momentum 0.9.
        base_lr: learning rate for a batch of 256; the rate used is base_lr * batch_size / 256.
        min_lr: where the cosine ends.
        warmup_epochs: of the learning rate, linear from 0.
        lr_per_epoch: the learning rate changes once an epoch, as in SimSiam's code, not at every step.
        weight_decay: where its cosine starts.
        weight_decay_end: where its cosine ends.
        decay_vectors: biases and vectors, BatchNorm's too, are decayed as well, as in SimSiam's code.
        clip_grad: largest norm of each parameter tensor's gradient; 0 for none.
        antialiased_positions: resize a ViT's position embeddings to other crop sizes as timm does, antialiased, and not
            as the released code does. Runs that were begun before this option was there did so.
        seed: of the weights, the order of the samples, every crop and the drop path.
    """

    method: MethodConfig
    backbone: Backbone
    policy: Policy
    drop_path: float = 0.0
    global_size: int = 224
    local_size: int = 96
    local_crops: int = 8
    global_scale: float | None = None
    max_blur: float | None = None
    epochs: int = 100
    batch_size: int = 512
    optimizer: Literal["adamw", "sgd"] = "adamw"
    base_lr: float = 5e-4
    min_lr: float = 1e-6
    warmup_epochs: int = 10
    lr_per_epoch: bool = False
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    decay_vectors: bool = False
    clip_grad: float = 3.0
    antialiased_positions: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        validate(self, "recipe.", RECIPE_BOUNDS)
        if self.local_crops and not self.method.local_crops:
            raise UserError(
                f"{self.method.name} takes no local crops: give --recipe.local_crops 0, not {self.local_crops}"
            )
        for name in ("global_size", "local_size") if self.local_crops else ("global_size",):
            size, patch = getattr(self, name), self.backbone.patch
            if size % patch:
                raise UserError(
                    f"recipe.{name} is {size}; {self.backbone} takes multiples of its patch of {patch} px, such as "
                    f"{max(patch, round(size / patch) * patch)}"
                )
        _ = self.views  # a policy that lacks the crops that are asked for says so here

    @property
    def lr(self) -> float:
        """The peak learning rate: linear scaling with the whole batch."""
        return self.base_lr * self.batch_size / 256

    @property
    def views(self) -> Policy:
        """The policy at this recipe's crop sizes and counts."""
        return self.policy.with_crops(
            global_size=self.global_size,
            local_size=self.local_size,
            local_crops=self.local_crops,
            global_scale=self.global_scale,
            max_blur=self.max_blur,
        )

    def build(self) -> Method:
        """The method with its initial weights, on the CPU."""
        method = self.method.build(self.backbone, self.drop_path)
        if self.antialiased_positions:
            antialias_positions(method)
        return method

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values; what checkpoints keep and compare.

        The method, backbone and policy go by the name that they have in this project's tables; others by the import
        path of the method's class and of the backbone's constructor, and a policy written out.

        Raises:
            UserError: a class or function that no import path leads to.
        """
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        known = METHODS.get(self.method.name) is type(self.method)
        name = self.method.name if known else import_path(type(self.method))
        named = BACKBONES.get(self.backbone.name) == self.backbone
        return plain | {
            "method": {"name": name, **asdict(self.method)},
            "backbone": self.backbone.name if named else import_path(self.backbone.build),
            "policy": self.policy.name if POLICIES.get(self.policy.name) == self.policy else self.policy.as_dict(),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Recipe":
        """The inverse of `as_dict`; options that the saved recipe's version had not are as they were then.

        Raises:
            UserError: a key or name that this version does not know.
        """
        try:
            plain = with_former_defaults(plain)
            method, backbone, policy = dict(plain["method"]), plain["backbone"], plain["policy"]
            name = method.pop("name")
            return cls(
                **plain
                | {
                    "method": (find(name) if ":" in name else METHODS[name])(**method),
                    "backbone": Backbone(backbone, find(backbone)) if ":" in backbone else find_backbone(backbone),
                    "policy": POLICIES[policy] if isinstance(policy, str) else Policy.from_dict(policy),
                }
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"not a recipe of this version of clever_fast: {error}") from error


def with_former_defaults(plain: dict[str, Any]) -> dict[str, Any]:
    """A saved recipe, completed by what its version did where it had no option yet."""
    siamese = plain["method"]["name"] in ("simsiam", "ddcl")
    method = {"train_projector_bias": True, "hidden": None} if siamese else {}
    positions = plain["backbone"].startswith("vit_")
    return {"antialiased_positions": positions, **plain, "method": method | plain["method"]}


def with_policy_numbers(plain: dict[str, Any]) -> dict[str, Any]:
    """A recipe as `as_dict` gives it, with the policy's own numbers where it has none: what is compared at a resume."""
    name = plain["policy"]
    policy = POLICIES.get(name) if isinstance(name, str) else Policy.from_dict(name)
    own = {} if policy is None else {"global_scale": policy.views[0].scale[0], "max_blur": policy.largest_blur}
    return plain | {key: value for key, value in own.items() if plain.get(key) is None}


Logger = Literal["tensorboard", "wandb", "trackio"]
OptimizerForm = Literal["fused", "foreach", "apex"]


@dataclass(frozen=True, kw_only=True)
class Execution(LoaderOptions):
    """Speed and memory options, the loader's among them; results change only by rounding.

    Args:
        device: cuda, cpu, or auto for a GPU where there is one.
        precision: of the networks: bf16 or fp16 autocast, or fp32; auto is bf16 on a GPU or a CPU with AMX, else fp32.
            Losses are always float32.
        channels_last: memory format of convolutions.
        kernels: of the losses, the clip and the teacher's average: fused (on a GPU; a CPU runs the reference), the
            reference, or as the released code does it: pair after pair, tensor after tensor, attention in three steps.
        compile: torch.compile of the backbones, whole and for each crop size, but for those with torch's synchronised
            BatchNorm (`plain` on several GPUs); auto is on on a GPU. `graphs` replays them as CUDA graphs besides, for
            batches so small that launches bind.
        checkpointing: recompute the student's blocks in the backward pass instead of keeping their activations, for
            batches that do not fit otherwise; about a third more work.
        optimizer: `fused` is torch's in one launch for all parameters, which also skips a failed step by itself. With
            torch's `foreach`, or NVIDIA Apex's where it is installed, the host waits for every step's verdict.
        bucket_mib: of gradients that DDP sends at once, in MiB.
    """

    device: Literal["auto", "cuda", "cpu"] = "auto"
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    channels_last: bool = True
    kernels: Kernels = "fused"
    compile: Literal["auto", "off", "on", "graphs"] = "auto"
    checkpointing: bool = False
    optimizer: OptimizerForm = "fused"
    bucket_mib: int = 25

    def __post_init__(self) -> None:
        validate(self, "execution.", EXECUTION_BOUNDS)


PLAIN = Execution(kernels="released", optimizer="foreach", channels_last=False, compile="off")

EXECUTIONS = {
    "fast": Execution(),
    "plain": PLAIN,  # the released code's way
    "small_memory": Execution(checkpointing=True),
    "compiled_plain": replace(PLAIN, compile="on"),  # what torch.compile alone makes of it
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run reads and writes, and how often it reports.

    Args:
        folder: of the run: checkpoints, logs and curves. The same command resumes it. Called --run on command lines.
        data: folder of class folders, or one with train/ in it; None where `train` is given a loader.
        classes: file with one class folder a line, to train on a subset such as ImageNet-100.
        log_every: steps between reports; the only points at which the host waits for the device.
        save_every: steps between checkpoints; 0 for one an epoch. One is always written at the end and when the run
            is told to stop (SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2).
        keep: how many checkpoints to keep; the newest is always checkpoint.pth.
        knn_every: epochs between k-NN evaluations during pretraining (needs val/ or test/ beside train/); 0 for none.
        stop_after: leave with a checkpoint after this many steps in all; for trying out a resume.
        loggers: where reports go besides metrics.jsonl, such as `[tensorboard, wandb]`; null for TensorBoard where
            it is installed.
        ranges: name epochs, steps, their parts and the ops to nsys (NVTX) and torch's profiler.
    """

    folder: Path
    data: Path | None = None
    classes: Path | None = None
    log_every: int = 10
    save_every: int = 0
    keep: int = 1
    knn_every: int = 0
    stop_after: int | None = None
    loggers: tuple[Logger, ...] | None = None
    ranges: bool = False

    def __post_init__(self) -> None:
        for name in ("folder", "data", "classes"):
            if isinstance(value := getattr(self, name), str):  # from Python
                object.__setattr__(self, name, Path(value))
        validate(self, "", RUN_BOUNDS)
