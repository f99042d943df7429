"""Say what innermost loops with fmla by lane are made of, in a disassembly of aarch64 on standard input."""

import re
import sys

INSTRUCTION = re.compile(r"^\s+([0-9a-f]+):\s+(\S+)\s*(.*)")
BY_LANE = re.compile(r"v\d+\.(\d+)([sd]), v\d+\.\d+[sd], v\d+\.[sd]\[\d\]")

SPILL = re.compile(r"[qds]\d+,.*\[sp")


def functions(lines):
    """Yield (name, [(address, mnemonic, operands), ..])."""
    name, body = "", []
    for line in lines:
        if line.endswith(">:\n"):
            if body:
                yield name, body
            name, body = line.split("<")[1][:-3], []
        elif found := INSTRUCTION.match(line):
            body.append((int(found[1], 16), found[2], found[3]))
    if body:
        yield name, body


def innermost(body):
    """Yield the instructions of each loop that has no other loop in it."""
    places = {address: i for i, (address, *_) in enumerate(body)}
    ends = []
    for i, (_, mnemonic, operands) in enumerate(body):
        target = re.search(r"([0-9a-f]+) <", operands) if mnemonic.startswith(("b.", "cb", "tb")) else None
        begin = places.get(int(target[1], 16)) if target else None
        if begin is not None and begin < i:
            ends.append((begin, i))
    for begin, end in ends:
        if not any(
            begin <= other < end and (other, last) != (begin, end) for other, last in ends if last <= end
        ):
            yield body[begin : end + 1]


def main():
    """Print a line for each kind of loop; return whether one of them spills."""
    kinds, spills = {}, 0
    for _, body in functions(sys.stdin):
        for loop in innermost(body):
            lanes = [BY_LANE.match(operands) for _, mnemonic, operands in loop if mnemonic == "fmla"]
            if len(lanes) < 2 or not all(lanes):
                continue
            spilled = sum(bool(SPILL.match(operands)) for *_, operands in loop)
            spills += spilled
            kind = (lanes[0][2], sum(int(found[1]) for found in lanes), len(lanes), len(loop), spilled)
            kinds[kind] = kinds.get(kind, 0) + 1
    print("type  multiply-adds  fmla  instructions  spills  per multiply-add  loops")
    for kind, count in sorted(kinds.items()):
        number, products, fmla, length, spilled = kind
        name = {"s": "float", "d": "double"}[number]
        print(f"{name:6}{products:13}{fmla:6}{length:14}{spilled:8}{length / products:18.3f}{count:7}")
    return not kinds or spills > 0


if __name__ == "__main__":
    sys.exit(main())
