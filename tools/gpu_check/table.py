"""Print one table of at most 60 lines about all that the folder holds."""

import json

from common import FOLDER

MOST = 60


def lines_of(name):
    """Return the rows of a file of JSON lines, without one that was cut."""
    rows = []
    path = FOLDER / name
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def main():
    """Print the table."""
    rows, out = lines_of("results.jsonl"), []
    ends = {row["stage"]: row for row in rows if row.get("event") == "end"}
    begun = [row["stage"] for row in rows if row.get("event") == "begin"]
    for stage in dict.fromkeys(begun):
        end = ends.get(stage)
        out.append(
            f"{stage:10} " + (f"status {end['status']} after {end['seconds']} s" if end else "was cut")
        )
    out += [
        f"FAILED {row['stage']} {row['case']}: {row['failure']}"[:150] for row in rows if row.get("failure")
    ]
    out += [f"FAILED {row['failed']}"[:150] for row in rows if "failed" in row]
    out += [f"tests {row['counts']}" for row in rows if "counts" in row]
    for row in lines_of("speed.jsonl"):
        if "ms" in row:
            numbers = [row["ms"], row["peer_ms"], row["floor_ms"], row["to_peer"]]
            words = " ".join(f"{n:>9.4g}" if n is not None else f"{'-':>9}" for n in numbers)
            out.append(f"{row['row'][:34]:34} {words}  {row['goal']} {row['met']}")
        else:
            out.append(f"{row['row'][:34]:34} {row.get('failure', '')}"[:150])
    out += [f"cpu {row['work']}: {row['ms']}" for row in rows if row["stage"] == "cpu" and "work" in row]
    print("\n".join(out[:MOST]))


if __name__ == "__main__":
    main()
