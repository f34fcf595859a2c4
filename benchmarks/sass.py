"""A CUDA kernel's machine code, read from what `cuobjdump -sass` prints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

# The operations of each class; what is not here is "other".
CLASSES = {
    "fp32": "FFMA FADD FMUL",
    "special": "MUFU",
    "tensor": "HMMA",
    "shared": "LDS STS LDSM STSM SHFL ATOMS",
    "global": "LDG STG RED ATOM ATOMG LD ST LDGSTS",
    "local": "LDL STL",
    "convert": "F2F F2FP F2I I2F I2FP FRND",
    "integer": "IADD IADD3 IMAD LEA LOP3 SHF ISETP PRMT SEL IABS VIADD VIMNMX IMNMX FSETP FSEL FMNMX PLOP3 R2P P2R "
    "POPC FLO SGXT BMSK HFMA2 HADD2 HMUL2 FSET LDC I2IP",
    "move": "MOV CS2R S2R S2UR R2UR VOTE NOP",
    "uniform": "ULDC UMOV UIADD3 UIMAD ULEA ULOP3 USHF UISETP USEL UPLOP3 UFLO UPOPC",
    "control": "BRA BSSY BSYNC BREAK BAR EXIT CALL RET WARPSYNC YIELD BPT ERRBAR MEMBAR",
}
CLASS_OF = {operation: kind for kind, operations in CLASSES.items() for operation in operations.split()}
MARKER = "PMTRIG"


@dataclass(frozen=True)
class Instruction:
    """One line of machine code."""

    address: int
    predicate: str  # "" where it is always carried out
    opcode: str
    operands: str

    @property
    def operation(self) -> str:
        return self.opcode.split(".")[0]

    @property
    def kind(self) -> str:
        if self.opcode.startswith("IMAD.MOV"):
            return "move"
        return CLASS_OF.get(self.operation, "uniform" if self.operation.startswith("U") else "other")

    @property
    def target(self) -> int | None:
        """Where a jump goes that any warp may take; those for warps that lost convergence (BRA.DIV) are left out."""
        if self.operation != "BRA" or ".DIV" in self.opcode:
            return None
        return int(re.findall(r"0x([0-9a-f]+)", self.operands)[-1], 16)

    @property
    def ends(self) -> bool:
        """Whether what follows is reached by a jump alone."""
        return self.operation in ("BRA", "EXIT", "RET", "BRX") and not self.predicate and ".DIV" not in self.opcode

    @cached_property
    def registers(self) -> tuple[list[str], list[str]]:
        """Written and read, predicates included; wide ones by each register."""
        parts = [part.strip() for part in self.operands.split(",")]
        stores = self.operation in ("STG", "STS", "RED", "STL", "ST", "BAR", "BRA", "EXIT", "BSYNC", "BSSY")
        written, read = [], [self.predicate.lstrip("@!")] if self.predicate else []
        outputs = 0 if stores else 1
        if self.operation in ("ISETP", "FSETP", "PLOP3", "UISETP"):
            outputs = 2
        if (
            len(parts) > 1
            and outputs
            and re.fullmatch(r"U?P\d", parts[1])
            and self.operation in ("IADD3", "LEA", "SHFL", "LOP3", "UIADD3")
        ):
            outputs = 2
        for i, part in enumerate(parts):
            for name, number in re.findall(r"\b(UR|R|UP|P)(\d+)\b", part):
                wide = 1
                if i < outputs:
                    wide = _width(self.opcode)
                elif ".64" in part or (stores and i == 1):
                    wide = 2 if ".64" in part else _width(self.opcode)
                target = written if i < outputs else read
                target += [f"{name}{int(number) + j}" for j in range(wide)]
        return written, read


def _width(opcode: str) -> int:
    if ".128" in opcode or opcode.startswith("HMMA") or (opcode.startswith("LDSM") and opcode.endswith(".4")):
        return 4
    if ".64" in opcode or ".WIDE" in opcode or (opcode.startswith("LDSM") and opcode.endswith(".2")):
        return 2
    return 1


def parse(listing: str) -> dict[str, list[Instruction]]:
    """Every function of what `cuobjdump -sass` prints."""
    functions: dict[str, list[Instruction]] = {}
    for line in listing.splitlines():
        if match := re.search(r"Function : (\S+)", line):
            functions[match[1]] = found = []
        elif match := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:(@!?U?P\w+) )?\s*([A-Z][\w.]*)\s*(.*?)\s*;", line):
            found.append(Instruction(int(match[1], 16), match[2] or "", match[3], match[4]))
    return functions
