"""What compare.py prints and draws: rows, targets, a chart."""

import statistics

LARGE = 50_000  # sites from which caches are too small for all features
HUGE = 900_000
OF_SGEMM = {16: 0.45, 32: 0.70, 64: 0.85, 128: 0.85}  # the share of it, by channels
SCALING = {"conv": 1.85, "rulebook": 1.8}  # of two threads over one
OF_FLOAT32 = 1.6  # the speed of bfloat16, where the CPU has instructions for it
MICROSECONDS = {1: 10, 1000: 60}  # of a call, by sites
COLOURS = {
    "spcy": "#0b6e99",
    "in float32": "#7fb6d0",
    "spconv": "#e0812f",
    "torch dense": "#8a8f98",
    "scipy.sparse": "#b9a7d3",
}
GREY = "#444444"
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def title(row, separator=" "):
    """Return what a row is about."""
    words = [f"{row['group']} {row['kind']}" if row["group"] in ("rulebook", "coords") else row["kind"]]
    if row["group"] in ("conv", "call"):
        words.append("{} \N{RIGHTWARDS ARROW} {}".format(*row["channels"]))
    if row["dtype"] != "float32":
        words.append(row["dtype"])
    return separator.join(words)


def place(row):
    """Return the words that a line begins with."""
    return f"{row['scene']:24} {row['threads']} thr  {title(row):28}"


def show(row):
    """Print a row: the time of each engine, and how many times spcy's it is."""
    ms, gflops = row["ms"], row["gflops"]
    print(place(row), end="")
    if row["group"] in ("rulebook", "coords"):
        print(f"{ns_per_site(row)['spcy']:7.1f} ns/site", end="")
    for engine in ms:
        print(f"   {engine} {ms[engine]:9.3f} ms", end="")
        print(f" {gflops[engine]:4.0f} GFLOP/s" if gflops else "", end="")
        print(f" ({ms[engine] / ms['spcy']:.1f}x)" if engine != "spcy" and "spcy" in ms else "", end="")
    if row["sgemm"]:
        print(f"   SGEMM {row['sgemm']:.0f} GFLOP/s", end="")
    if row["one_thread_ms"]:
        print(f"   {row['one_thread_ms'] / ms['spcy']:.2f}x one thread", end="")
    for engine, note in row["notes"].items():
        print(f"   {engine} {note}", end="")
    print(flush=True)


def judge(rows):
    """Return what was reached beside what is wanted."""
    targets = []

    def target(row, what, value, wanted, unit="x", at_most=False):
        reached = value <= wanted if at_most else value >= wanted
        score = {"what": what, "value": value, "wanted": wanted, "unit": unit, "reached": reached}
        targets.append({"place": place(row), **score})

    for row in rows:
        ms, group, channels, threads = row["ms"], row["group"], row["channels"], row["threads"]
        if row["dtype"] == "bfloat16":
            target(row, "of float32's speed", ms["in float32"] / ms["spcy"], OF_FLOAT32)
        if row["dtype"] != "float32":
            continue
        if group in ("conv", "rulebook", "network") and "spconv" in ms:
            wanted = {
                "conv": 5 if row["sites"] >= HUGE and max(channels, default=0) <= 64 else 2.5,
                "rulebook": 5 if threads == 1 else 9,
                "network": 4,
            }[group]
            target(row, "of spconv's speed", ms["spconv"] / ms["spcy"], wanted)
        if group == "conv" and row["kind"] == "submanifold" and row["sites"] >= LARGE:
            share = 100 * row["gflops"]["spcy"] / row["sgemm"]
            target(row, "of SGEMM", share, 100 * OF_SGEMM[channels[0]], "%")
        if group in SCALING and threads == 2 and row["sites"] >= LARGE:
            target(row, "of one thread's speed", row["one_thread_ms"] / ms["spcy"], SCALING[group])
        if group == "call":
            target(row, "a call", 1e3 * ms["spcy"], MICROSECONDS[row["sites"]], " us", at_most=True)
    return targets


def show_targets(targets):
    """Print the targets."""
    print("\nTargets")
    for t in targets:
        value, wanted = (f"{t[key]:.4g}{t['unit']}" for key in ("value", "wanted"))
        mark = "reached" if t["reached"] else "NOT REACHED"
        print(f"{t['place']} {value:>8} {t['what']:22} target {wanted:>7}  {mark}")
    print(f"{sum(t['reached'] for t in targets)} of {len(targets)} reached")


def chart(rows, machine, path):
    """Draw a row of panels for each scene and number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    places = list(dict.fromkeys((r["scene"], r["threads"]) for r in rows if r["group"] == "network"))
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
    with plt.rc_context(style):
        size = (15, 0.9 + 3.3 * len(places))
        grid = {"squeeze": False, "width_ratios": [9, 4, 1.6], "figsize": size, "layout": "constrained"}
        figure, axes = plt.subplots(len(places), 3, **grid)
        for (scene, threads), (convs, rulebooks, network) in zip(places, axes, strict=True):
            group = {}
            for row in rows:
                if (row["scene"], row["threads"]) == (scene, threads):
                    group.setdefault(row["group"], []).append(row)
            bars(convs, group["conv"], lambda row: row["gflops"], "GFLOP/s (higher is better)")
            peak = statistics.median(row["sgemm"] for row in group["conv"])
            convs.axhline(peak, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            convs.set_ylim(0, 1.2 * max(peak, *(max(row["gflops"].values()) for row in group["conv"])))
            bars(rulebooks, group["rulebook"], ns_per_site, "ns per site (lower is better)")
            bars(network, group["network"], lambda row: row["ms"], "ms (lower is better)")
            where = f"{scene} sites, {threads} thread{'s' * (threads > 1)}"
            convs.set_title(f"{where}: convolutions", loc="left", weight="bold")
            rulebooks.set_title("rulebooks", loc="left", weight="bold")
            network.set_title("network", loc="left", weight="bold")
        handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
        handles.append(plt.Line2D([], [], color=GREY, linewidth=1, linestyle=(0, (4, 3))))
        labels = [*COLOURS, "NumPy's float32 matrix product"]
        figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)
        figure.suptitle(f"{machine}; on the bars: times spconv's speed", x=0.008, ha="left", fontsize=10)
        figure.savefig(path, dpi=130)
    plt.close(figure)


def ns_per_site(row):
    """Return the nanoseconds that each engine takes for a site."""
    return {engine: ms / row["sites"] * 1e6 for engine, ms in row["ms"].items()}


def bars(axes, rows, values_of, unit):
    """Draw a group of bars for each row, one for each engine."""
    engines = [e for e in COLOURS if any(e in row["ms"] for row in rows)]
    width = 0.8 / max(1, len(engines))
    for i, row in enumerate(rows):
        values = values_of(row)
        for j, engine in enumerate(e for e in engines if e in values):
            bar = axes.bar(i + (j + 0.5) * width - 0.4, values[engine], width * 0.92, color=COLOURS[engine])
            if engine == "spcy" and "spconv" in row["ms"]:
                ratio = row["ms"]["spconv"] / row["ms"]["spcy"]
                axes.bar_label(
                    bar, [f"{ratio:.1f}x"], padding=2, color=COLOURS["spcy"], weight="bold", bbox=PLAIN
                )
    names = [title(row, "\n").removeprefix("rulebook ") for row in rows]
    if len(rows) > 5:  # no room for the long word
        names = [name.replace("submanifold", "subm.") for name in names]
    axes.set_xticks(range(len(rows)), names)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(unit)
    axes.grid(axis="y", color="#dddddd")
    axes.margins(y=0.12)
