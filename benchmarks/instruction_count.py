"""Warp instructions that a CUDA kernel executes, counted from its machine code; no GPU is needed.

A build with CLEVER_FAST_COUNT leaves a marker (PMTRIG, which does nothing) at each place of the source that says
CLEVER_FAST_VISIT. Whoever knows how often a place is visited, by hand or from the emulator's own count, knows how often
the machine code around the marker runs; a marker that the compiler copied, when it unrolled a loop, shares the visits.
The rest follows from the graph of jumps: code without a marker runs as often as the marked place that leads to it
within the same loop. So a branch without a marker counts as taken each time: counts are upper bounds there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from clever_fast.benchmarks.sass import MARKER, Instruction

# Warp instructions a clock and multiprocessor, of compute capabilities 8.0 and 9.0: CUDA C++ Programming Guide, table
# of arithmetic throughput (lanes a clock / 32). "issue" is all of them together: four schedulers, one each. A product
# m16n8k16 of bfloat16 is 2048 multiply-adds; a multiprocessor makes 1024 (A100) or, by HMMA, 2048 (H100) a clock.
RATES = {
    80: {"issue": 4, "fp32": 2, "special": 0.5, "integer": 2, "convert": 2, "shared": 1, "global": 1, "tensor": 0.5},
    90: {"issue": 4, "fp32": 4, "special": 0.5, "integer": 2, "convert": 2, "shared": 1, "global": 1, "tensor": 1},
}

# Clocks until a result can be used. Abdelkhalik et al. 2022, "Demystifying the Nvidia Ampere architecture": 4 for
# arithmetic, 23 for shared memory, 33 for a product of a tensor core; they find 200 for the L2 and 290 for memory of an
# idle GPU. Global memory of a busy one is taken as 500 here: an assumption.
LATENCIES = {"special": 18, "tensor": 33, "shared": 23, "global": 500, "local": 33, "convert": 8, "uniform": 8}
BARRIER = 30


@dataclass
class Block:
    """Instructions that run one after another, and the blocks that may follow."""

    instructions: list[Instruction]
    next: list[int] = field(default_factory=list)

    @property
    def markers(self) -> Counter[int]:
        return Counter(int(i.operands, 16) for i in self.instructions if i.operation == MARKER)


def blocks_of(instructions: list[Instruction]) -> list[Block]:
    starts = {instructions[0].address}
    for instruction, after in pairwise(instructions):
        if instruction.target is not None:
            starts |= {instruction.target, after.address}
        elif instruction.ends:
            starts.add(after.address)
    blocks: list[Block] = []
    for instruction in instructions:
        if instruction.address in starts:
            blocks.append(Block([]))
        blocks[-1].instructions.append(instruction)
    number = {block.instructions[0].address: i for i, block in enumerate(blocks)}
    for i, block in enumerate(blocks):
        last = block.instructions[-1]
        if last.target is not None:
            block.next.append(number[last.target])
        if not last.ends and i + 1 < len(blocks):
            block.next.append(i + 1)
    return blocks


def visits(blocks: list[Block], entries: float, of_places: Mapping[int, float]) -> list[float]:
    """How many warps run each block, if `entries` start the kernel and a place is visited so often in all.

    Raises:
        ValueError: a loop, or a marker in it, of which nobody says how often it runs.
    """
    dominators = _dominators(blocks)
    loops: dict[int, set[int]] = {}  # by the first block
    for i, block in enumerate(blocks):
        for head in block.next:
            if head in dominators[i]:
                loops[head] = loops.get(head, set()) | _loop(blocks, head, i)
    innermost = [min((len(body), head) for head, body in [*loops.items(), (-1, range(len(blocks) + 1))]
                     if head < 0 or i in body)[1] for i in range(len(blocks))]  # fmt: skip
    found: dict[int, float] = {}
    copies: dict[int, Counter[int]] = defaultdict(Counter)  # of a place's marker in each loop
    for i, block in enumerate(blocks):
        if dominators[i]:
            for place, times in block.markers.items():
                copies[place][innermost[i]] += times
    for i, block in enumerate(blocks):
        if not dominators[i]:
            continue
        for place in block.markers:
            if place not in of_places:
                raise ValueError(f"nobody counted the visits of place {place}")
            # a loop that was unrolled leaves a rest elsewhere, which runs only where its rounds do not divide
            main, most = copies[place].most_common(1)[0]
            share = of_places[place] / most if innermost[i] == main else 0
            found[i] = max(found.get(i, 0), share)
    result = [0.0] * len(blocks)
    for i in range(len(blocks)):
        if not dominators[i]:
            continue  # reached by no jump that is taken
        home = innermost[i]
        inside = [d for d in dominators[i] if d in found and innermost[d] == home]
        if i in found:
            result[i] = found[i]
        elif inside:
            result[i] = found[max(inside, key=lambda d: len(dominators[d]))]
        elif home < 0:
            result[i] = entries
        else:
            marked = [found[j] for j in loops[home] if j in found and innermost[j] == home]
            if not marked:
                raise ValueError(f"the loop at {blocks[home].instructions[0].address:#x} has no marker")
            result[i] = max(marked)
    return result


def _dominators(blocks: list[Block]) -> list[set[int]]:
    """The blocks through which every way to a block leads, itself included; empty where no way leads there."""
    before: list[list[int]] = [[] for _ in blocks]
    reached, todo = {0}, [0]
    while todo:
        i = todo.pop()
        for j in blocks[i].next:
            before[j].append(i)
            if j not in reached:
                reached.add(j)
                todo.append(j)
    found = [set(reached) if i in reached else set() for i in range(len(blocks))]
    found[0] = {0}
    changed = True
    while changed:
        changed = False
        for i in sorted(reached - {0}):
            new = set.intersection(*(found[j] for j in before[i])) | {i}
            changed |= new != found[i]
            found[i] = new
    return found


def _loop(blocks: list[Block], head: int, tail: int) -> set[int]:
    body, todo = {head}, [tail]
    while todo:
        i = todo.pop()
        if i not in body:
            body.add(i)
            todo += [j for j, block in enumerate(blocks) if i in block.next]
    return body


@dataclass(frozen=True)
class Count:
    """What the warps of one launch execute."""

    instructions: dict[str, float]  # by class
    alone: float  # clocks of all the warps together if each ran alone, one instruction after another in order

    @property
    def total(self) -> float:
        return sum(self.instructions.values())

    def clocks(self, capability: int) -> tuple[float, str]:
        """At least so many clocks of one multiprocessor, and the unit that takes them."""
        rates = RATES[capability]
        bounds = {kind: self.instructions.get(kind, 0) / rate for kind, rate in rates.items() if kind != "issue"}
        bounds["issue"] = self.total / rates["issue"]
        return max((clocks, kind) for kind, clocks in bounds.items())


def count(instructions: list[Instruction], entries: float, of_places: Mapping[int, float]) -> Count:
    """The instructions that `entries` warps execute; markers are none."""
    blocks = blocks_of(instructions)
    by_class: Counter[str] = Counter()
    clocks, ready = 0.0, {}
    for block, times in zip(blocks, visits(blocks, entries, of_places), strict=True):
        if times:
            for instruction in block.instructions:
                if instruction.operation != MARKER:
                    by_class[instruction.kind] += times
            clocks += times * alone(block.instructions, ready)
    return Count(dict(by_class), clocks)


def alone(instructions: list[Instruction], ready: dict[str, float]) -> float:
    """Clocks of a warp for these instructions, in order, each waiting for what it reads.

    `ready` says in how many clocks each register is there, at the start and then at the end.
    """
    now = 0.0
    for instruction in instructions:
        if instruction.operation == MARKER:
            continue
        written, read = instruction.registers
        now = max([now + 1, *(ready.get(register, 0) for register in read)])
        if instruction.operation == "BAR":
            now += BARRIER
        for register in written:
            ready[register] = now + LATENCIES.get(instruction.kind, 4)
    for register, at in list(ready.items()):
        ready[register] = at - now
        if at <= now:
            del ready[register]
    return now
