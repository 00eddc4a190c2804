"""Loads, stores, atomic sums, ``ldmatrix``, ``cp.async`` and barriers."""

from __future__ import annotations

import numpy as np
from ptx.errors import PtxError
from ptx.parser import Address, Instruction
from ptx.program import Scope, Step
from ptx.values import bits_of, type_of

VECTORS = {"v2": 2, "v4": 4}
ALL = "-1"


def _address(scope: Scope, operand: Address):
    """(machine) -> addresses, as wide as the register that has them."""
    slot, offset = scope.slot(operand.base, "b64"), operand.offset

    def addresses(machine):
        base = machine.registers[slot]
        return base if not offset else base + np.array(offset).astype(base.dtype)

    return addresses


def _registers(operand, count: int) -> tuple[str, ...]:
    names = operand if isinstance(operand, tuple) else (operand,)
    if len(names) != count:
        raise PtxError(f"expected {count} registers")
    return names


def load(scope: Scope, instruction: Instruction) -> Step:
    space = instruction.one_of("param", "global", "shared")
    if space == "param":
        target, source = instruction.operands
        slot, (origin, _) = scope.slot(target), scope.parameter(source)
        dtype, wide = _in_memory(instruction.type), scope.bits_of(target)
        return lambda machine, mask: machine.put(
            slot, machine.registers[origin].view(dtype).astype(wide), mask
        )
    names, element, count = _words(scope, instruction, instruction.operands[0])
    slots = [(scope.slot(x), scope.bits_of(x)) for x in names]
    addresses = _address(scope, instruction.operands[1])
    read = {"global": _read_global, "shared": _read_shared}[space]
    if "acquire" in instruction.modifiers:
        read = _read_acquire

    def step(machine, mask):
        found = read(machine, addresses(machine), element.itemsize * count, mask)
        words = found.view(element)
        for i, (slot, dtype) in enumerate(slots):
            machine.put(slot, words[..., i].astype(dtype), mask)

    return step


def _words(scope: Scope, instruction: Instruction, operand):
    """Registers of a load or a store, the type of each in memory, and how many there are."""
    count = VECTORS.get(instruction.one_of(*VECTORS), 1)
    return _registers(operand, count), _in_memory(instruction.type), count


def _in_memory(type_name: str) -> np.dtype:
    """As what a word is read before it fills a wider register: s32 is extended by its sign."""
    return type_of(type_name) if type_name[0] == "s" else bits_of(type_of(type_name))


def _read_global(machine, address, size, mask):
    if mask is None:
        shape = np.broadcast_shapes(address.shape, (len(machine.rows), 1))
        warp = machine.warps if shape[1] > 1 else machine.all_warps
        address, block, warp = (np.broadcast_to(x, shape) for x in (address, machine.numbers, warp))
        return machine.memory.load(address, size, block, warp)
    address, block, warp = _chosen(machine, mask, address, machine.numbers, machine.warps)
    found = np.zeros((*machine.shape, size), np.uint8)
    found[machine.full(mask)] = machine.memory.load(address, size, block, warp)
    return found


def _read_acquire(machine, address, size, mask):
    """Every thread for itself, as it is one thread of a block that waits for others."""
    address, block = _chosen(machine, mask, address, machine.numbers)
    found = np.zeros((*machine.shape, size), np.uint8)
    here = machine.full(np.array([[True]]) if mask is None else mask)
    found[here] = machine.memory.load_acquire(address, size, block)
    return found


def _read_shared(machine, address, size, mask):
    address = machine.full(address)
    if mask is None:
        found = machine.shared.load(address.reshape(-1), size, machine.lanes.reshape(-1))
        return found.reshape(*machine.shape, size)
    mask = machine.full(mask)
    found = np.zeros((*machine.shape, size), np.uint8)
    found[mask] = machine.shared.load(address[mask], size, machine.lanes[mask])
    return found


def _chosen(machine, mask, *arrays):
    """The entries of each array of the threads of a mask, in one dimension."""
    arrays = [
        x if x.shape[:2] == machine.shape else np.broadcast_to(x, (*machine.shape, *x.shape[2:]))
        for x in arrays
    ]
    if mask is None:
        return [x.reshape(-1, *x.shape[2:]) for x in arrays]
    mask = machine.full(mask)
    return [x[mask] for x in arrays]


def store(scope: Scope, instruction: Instruction) -> Step:
    space = instruction.one_of("param", "global", "shared")
    if space is None:
        raise PtxError("its state space is not modelled")
    if space == "param":
        target, dtype = scope.parameter(instruction.operands[0])
        source = scope.slot(instruction.operands[1], instruction.type)
        return lambda machine, mask: machine.put(
            target, machine.registers[source].astype(dtype), mask
        )
    names, element, _ = _words(scope, instruction, instruction.operands[1])
    slots = [scope.slot(x, instruction.type) for x in names]
    addresses = _address(scope, instruction.operands[0])

    def step(machine, mask):
        words = [machine.full(machine.registers[x]).astype(element) for x in slots]
        values = np.stack(words, -1).view(np.uint8)
        address, values, lane, block, warp = _chosen(
            machine, mask, addresses(machine), values, machine.lanes, machine.numbers,
            machine.warps,
        )  # fmt: skip
        if space == "global":
            machine.memory.store(address, values, block, warp)
        else:
            machine.shared.store(address, values, lane)

    return step


def add_atomically(scope: Scope, instruction: Instruction) -> Step:
    """``atom.add`` of 32 bits in global memory."""
    *_, kind, name = instruction.modifiers
    orders = {"relaxed": (0, 0), "acquire": (1, 0), "release": (0, 1), "acq_rel": (1, 1)}
    order = instruction.one_of(*orders)
    if (kind, name) not in (("add", "u32"), ("add", "s32")) or order is None:
        raise PtxError("only sums of 32-bit integers with a named order are modelled")
    if instruction.one_of("gpu", "sys") is None or "global" not in instruction.modifiers:
        raise PtxError("only counters in global memory that all blocks see are modelled")
    target, source, added = instruction.operands
    slot, added, addresses = scope.slot(target), scope.slot(added), _address(scope, source)
    acquire, release = map(bool, orders[order])

    def step(machine, mask):
        address, values, block = _chosen(
            machine, mask, addresses(machine), machine.registers[added], machine.numbers
        )
        before = machine.memory.add(address, values, block, acquire=acquire, release=release)
        found = np.zeros(machine.shape, np.uint32)
        found[machine.full(np.array([[True]]) if mask is None else mask)] = before
        machine.put(slot, found, mask)

    return step


def load_matrices(scope: Scope, instruction: Instruction) -> Step:
    """``ldmatrix``: eight lanes have the addresses of a matrix's rows of eight halves."""
    count = {"x1": 1, "x2": 2, "x4": 4}[instruction.one_of("x1", "x2", "x4")]
    if instruction.type != "b16" or "m8n8" not in instruction.modifiers:
        raise PtxError("only 8×8 matrices of b16 are modelled")
    slots = [scope.slot(x) for x in _registers(instruction.operands[0], count)]
    addresses = _address(scope, instruction.operands[1])
    transposed = "trans" in instruction.modifiers

    def step(machine, mask):
        machine.whole_warps(mask)
        giving = machine.full(np.arange(machine.threads)[None] % 32 < 8 * count)
        chosen = giving if mask is None else giving & mask
        rows = _read_shared(machine, addresses(machine), 16, chosen)
        halves = rows.reshape(-1, 32, 16)[:, : 8 * count].reshape(-1, count, 8, 16).view(np.uint16)
        if transposed:
            halves = np.ascontiguousarray(halves.swapaxes(2, 3))
        for i, slot in enumerate(slots):
            words = np.ascontiguousarray(halves[:, i]).view(np.uint32)
            machine.put(slot, words.reshape(machine.shape), mask)

    return step


def copy(scope: Scope, instruction: Instruction) -> Step:
    """``cp.async`` of 4, 8 or 16 bytes, its groups and its waits."""
    kind = instruction.modifiers[1]
    if kind == "commit_group":
        return lambda machine, mask: machine.shared.commit(_chosen(machine, mask, machine.lanes)[0])
    if kind in ("wait_group", "wait_all"):
        allowed = int(instruction.operands[0]) if kind == "wait_group" else None
        return lambda machine, mask: machine.shared.wait(
            _chosen(machine, mask, machine.lanes)[0], allowed
        )
    return _start_copy(scope, instruction)


def _start_copy(scope: Scope, instruction: Instruction) -> Step:
    target, source, size, *given = instruction.operands
    if instruction.modifiers[1] not in ("ca", "cg") or "global" not in instruction.modifiers:
        raise PtxError("only copies from global to shared memory are modelled")
    size = int(size, 0)
    targets, sources = _address(scope, target), _address(scope, source)
    given = scope.slot(given[0], "u32") if given else scope.slot(str(size), "u32")

    def step(machine, mask):
        address, origin, lane, block, warp, wanted = _chosen(
            machine, mask, targets(machine), sources(machine), machine.lanes, machine.numbers,
            machine.warps, machine.registers[given],
        )  # fmt: skip
        if not ((wanted == 0) | (wanted == size)).all():
            raise PtxError("copies that are filled with zeros in part are not modelled")
        values, real = np.zeros((len(lane), size), np.uint8), wanted != 0
        values[real] = machine.memory.load(origin[real], size, block[real], warp[real])
        machine.shared.start_copy(address, values, lane)

    return step


def barrier(scope: Scope, instruction: Instruction) -> Step:
    if instruction.modifiers == ("warp", "sync") and instruction.operands == (ALL,):
        return lambda machine, mask: machine.whole_warps(mask)
    if instruction.modifiers[:1] == ("sync",) and instruction.operands == ("0",):
        return lambda machine, mask: machine.barrier(mask)
    raise PtxError("only bar.sync 0 and bar.warp.sync -1 are modelled")
