"""`unclip bench`: time, memory, and quality by number of steps."""

import argparse

from ..unclip_core.weights.choices import DTYPE_NAMES
from .exits import run_and_report
from .parser import Commands, Parser, add_device


def add_bench(commands: Commands) -> None:
    """`unclip bench`: a sub-parser for each measure."""
    bench = commands.add_parser("bench", help="measure time and memory of each stage")
    measures = bench.add_measures(required=True, metavar="MEASURE", dest="measure", title="measures")
    for add in (
        _add_tiny,
        _add_karlo,
        _add_kandinsky,
        _add_parity,
        _add_speed,
        _add_steps,
        _add_inversion,
        _add_map,
        _add_train,
    ):
        add(measures)


def _add_tiny(measures: Commands) -> None:
    tiny = measures.add_parser("tiny", help="a bundled model, warm and from a cold start")
    tiny.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default: %(default)s)")
    _add_dtype(tiny, "fp32")
    _add_json(tiny)
    add_device(tiny)
    tiny.add_argument(
        "--model", choices=["things", "shapes"], default="things", help="which bundled one (default: %(default)s)"
    )
    tiny.add_argument(
        "--cold",
        type=int,
        default=3,
        help="fresh processes, the median counts; 0 for none (default: %(default)s)",
    )
    tiny.set_defaults(call=_bench_tiny)


def _add_karlo(measures: Commands) -> None:
    karlo = measures.add_parser("karlo", help="the real size with random weights")
    karlo.add_argument("--size", choices=["full", "small"], default="full", help="of the model (default: %(default)s)")
    _add_dtype(karlo, "bf16")
    karlo.add_argument("--steps", type=int, default=2, help="of each stage (default: %(default)s)")
    karlo.add_argument("--folder", metavar="DIR", help="a model to measure, or where the random one is to stay")
    _add_json(karlo)
    add_device(karlo)
    karlo.set_defaults(call=_bench_karlo)


def _add_kandinsky(measures: Commands) -> None:
    kandinsky = measures.add_parser("kandinsky22", help="Kandinsky 2.2 at its real size with random weights")
    kandinsky.add_argument(
        "--size", choices=["full", "small"], default="full", help="of the model (default: %(default)s)"
    )
    _add_dtype(kandinsky, "bf16")
    kandinsky.add_argument("--steps", type=int, default=2, help="of each stage (default: %(default)s)")
    kandinsky.add_argument("--side", type=int, default=768, help="of the image, px (default: %(default)s)")
    kandinsky.add_argument("--folder", metavar="DIR", help="where the random model is to stay")
    _add_json(kandinsky)
    add_device(kandinsky)
    kandinsky.set_defaults(call=_bench_kandinsky)


def _add_parity(measures: Commands) -> None:
    parity = measures.add_parser(
        "parity",
        help="how far Karlo is from diffusers (which has to be installed)",
        description="How far Karlo is from diffusers and from kakaobrain's conventions, on small random models. "
        "Exit code: 0 if every tolerance holds, 1 if not.",
    )
    _add_json(parity)
    parity.set_defaults(call=_bench_parity)


def _add_speed(measures: Commands) -> None:
    speed = measures.add_parser("speed", help="time and memory beside diffusers")
    speed.add_argument("--size", choices=["full", "small"], default="small", help="of the model (default: %(default)s)")
    speed.add_argument(
        "--dtypes", nargs="+", choices=["fp32", "bf16", "fp16"], default=["fp32", "bf16"], help="of the nets"
    )
    speed.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="images drawn together")
    speed.add_argument("--rounds", type=int, default=3, help="pairs of processes (default: %(default)s)")
    speed.add_argument(
        "--stage-steps",
        type=int,
        nargs="+",
        metavar="STEPS",
        help="of prior, decoder and (Karlo) upsampler; default: 10 10 4, of size full 25 25 7 (Kandinsky: 25 50)",
    )
    speed.add_argument("--folder", metavar="DIR", help="where the random models are to stay")
    _add_json(speed)
    _add_plot(speed)
    add_device(speed)
    speed.add_argument(
        "--family", choices=["karlo", "kandinsky22"], default="karlo", help="whose shape (default: %(default)s)"
    )
    speed.add_argument(
        "--offload", action="store_true", help="models wait in main memory and are on the device while they run"
    )
    speed.add_argument("--profile", action="store_true", help="also tell where the time goes, by torch's profiler")
    speed.add_argument("--plain", action="store_true", help="also measure ours without a GPU's faster ways")
    speed.set_defaults(call=_bench_speed)


def _add_steps(measures: Commands) -> None:
    steps = measures.add_parser("steps", help="quality by solver and number of steps")
    _add_count(steps)
    steps.add_argument("--folder", metavar="DIR", help="a Karlo to measure (default: a small random one)")
    _add_json(steps)
    _add_plot(steps)
    add_device(steps)
    steps.set_defaults(call=_bench_steps)


def _add_inversion(measures: Commands) -> None:
    inversion = measures.add_parser("inversion", help="how well images come back from their embedding and noise")
    _add_count(inversion)
    inversion.add_argument("--folder", metavar="DIR", help="a model to measure (default: the bundled one of shapes)")
    _add_json(inversion)
    add_device(inversion)
    inversion.set_defaults(call=_bench_inversion)


def _add_map(measures: Commands) -> None:
    mapped = measures.add_parser(
        "map",
        help="what Ray costs, how `unclip map` scales, and whether killed workers cost an image",
        description="Measure `unclip map`: workers beside one process with the same batches of a model, Ray's overhead "
        "a row, and a worker that takes 10 ms a row beside what would be ideal; or, with --kill-every, whether a run "
        "whose workers are killed makes the images of one process (exit code 1 if not).",
    )
    mapped.add_argument("--rows", type=int, help="of the model (default: 128; with --kill-every 500)")
    mapped.add_argument("--fake-rows", type=int, default=10_000, help="of 10 ms (default: %(default)s)")
    mapped.add_argument("--empty-rows", type=int, default=6_400, help="to measure the overhead (default: %(default)s)")
    mapped.add_argument("--batch", type=int, default=16, help="rows made together (default: %(default)s)")
    mapped.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    mapped.add_argument("--kill-every", type=float, metavar="SECONDS", help="kill a worker so often")
    shapes = "bundled (shapes)"
    mapped.add_argument("--model", metavar="DIR", default=shapes, help="a model folder (default: %(default)s)")
    _add_json(mapped)
    mapped.set_defaults(call=_bench_map)


def _add_train(measures: Commands) -> None:
    train = measures.add_parser(
        "train",
        help="images a second that a decoder is trained on",
        description="Train a new decoder for some steps on JPEG files, in a fresh process by each way that a GPU has: "
        "images a second with reading them and without.",
    )
    train.add_argument(
        "--size", choices=["small", "tiny"], default="small", help="of the decoder (default: %(default)s)"
    )
    train.add_argument(
        "--dtype", choices=["fp32", "bf16", "fp16"], default="fp32", help="precision (default: %(default)s)"
    )
    train.add_argument("--batch", type=int, default=256, help="images a step (default: %(default)s)")
    train.add_argument("--steps", type=int, default=60, help="steps that are timed (default: %(default)s)")
    train.add_argument("--images", type=int, default=2048, help="files to train on (default: %(default)s)")
    train.add_argument("--workers", type=int, help="processes that read (default: the cores but one; on a CPU none)")
    train.add_argument(
        "--ways",
        nargs="+",
        choices=["plain", "channels_last", "compiled", "tuned"],
        default=["plain", "channels_last"],
        help="torch's own; channels last with the norm's kernels; torch's compiler, which takes a minute first; "
        "channels last, with cuDNN timing its algorithms (default: plain channels_last)",
    )
    train.add_argument(
        "--optimizer", choices=["auto", "muon", "adamw"], default="auto", help="auto is Muon (default: %(default)s)"
    )
    _add_json(train)
    add_device(train)
    train.set_defaults(call=_bench_train)


def _add_json(measure: Parser) -> None:
    measure.add_argument("--json", action="store_true", help="print the figures as JSON")


def _add_plot(measure: Parser) -> None:
    measure.add_argument("--plot", metavar="FILE.png", help="draw the figures too")


def _add_count(measure: Parser) -> None:
    measure.add_argument("--n", type=int, default=24, help="images a point (default: %(default)s)")


def _add_dtype(measure: Parser, default: str) -> None:
    measure.add_argument("--dtype", choices=DTYPE_NAMES, default=default, help="of the nets (default: %(default)s)")


def _bench_tiny(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.tiny import bench_tiny

    return run_and_report(
        lambda: bench_tiny(
            options.repeats,
            as_json=options.json,
            dtype=options.dtype,
            device=options.device,
            model=options.model,
            cold=options.cold,
        )
    )


def _bench_karlo(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.karlo import bench_karlo

    return run_and_report(
        lambda: bench_karlo(
            options.size, options.dtype, options.steps, options.folder, options.json, device=options.device
        )
    )


def _bench_kandinsky(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.kandinsky import bench_kandinsky

    return run_and_report(
        lambda: bench_kandinsky(
            options.size, options.dtype, options.steps, options.side, options.folder, options.json, options.device
        )
    )


def _bench_parity(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.parity.table import bench_parity

    return run_and_report(lambda: all(row.holds for row in bench_parity(options.json)))


def _bench_speed(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.speed.table import bench_speed

    return run_and_report(
        lambda: bench_speed(
            options.size,
            options.dtypes,
            options.batches,
            options.rounds,
            options.folder,
            options.json,
            options.plot,
            options.stage_steps,
            options.device,
            options.family,
            offload=options.offload,
            profile=options.profile,
            plain=options.plain,
        )
    )


def _bench_steps(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.speed.steps import bench_steps

    return run_and_report(
        lambda: bench_steps(options.n, options.folder, options.json, options.plot, device=options.device)
    )


def _bench_inversion(options: argparse.Namespace) -> int:
    from ..unclip_core.bench.inversion import bench_inversion

    return run_and_report(lambda: bench_inversion(options.n, options.folder, options.json, device=options.device))


def _bench_map(options: argparse.Namespace) -> int:
    return run_and_report(lambda: _bench_map_or_kills(options))


def _bench_map_or_kills(options: argparse.Namespace) -> object:
    from .mapping.bench import Sizes, bench_kills, bench_map

    if options.kill_every is None:
        sizes = Sizes(
            128 if options.rows is None else options.rows,
            options.fake_rows,
            options.empty_rows,
            options.batch,
            options.workers,
        )
        return bench_map(sizes, options.model, options.json)
    if options.kill_every <= 0:
        raise ValueError(f"--kill-every is {options.kill_every:g}; it must be above 0.")
    rows = 500 if options.rows is None else options.rows
    sizes = Sizes(rows, rows, rows, options.batch, options.workers)
    return bench_kills(options.kill_every, sizes, options.model, options.json)


def _bench_train(options: argparse.Namespace) -> int:
    from ..unclip_core.train.speed import bench_train

    return run_and_report(
        lambda: bench_train(
            options.size,
            options.dtype,
            options.batch,
            options.steps,
            options.images,
            options.workers,
            options.ways,
            options.optimizer,
            device=options.device,
            as_json=options.json,
        )
    )
