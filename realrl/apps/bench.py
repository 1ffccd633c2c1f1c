"""Benchmarks: `python -m realrl.apps.bench realloc|boxes [--json] [--simulate] [options]`.

Exit codes: 0 done, 1 a benchmark failed, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, run_command

DEFAULT_PAIRS = "t4:d4,p4:t4,t4:p4,d4:t4,p2t2:d2t2,t2@0:d2@2"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = _parse(argv)
        if arguments.benchmark == "boxes":
            return _boxes(arguments)
        return _simulate(arguments) if arguments.simulate else _measure(arguments)
    except ValueError as error:
        return complain(str(error), BAD_INPUT)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="realrl.apps.bench", allow_abbrev=False, description="Moving a model's weights.")
    parser.add_argument("benchmark", choices=["realloc", "boxes"], help="whole transfers, or the kernels")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--simulate", action="store_true", help="predict for clusters that are not here")
    measured = parser.add_argument_group("measured on this machine")
    measured.add_argument("--workers", type=_count, default=4, metavar="N")
    measured.add_argument("--rounds", type=_count, default=5, metavar="N")
    measured.add_argument("--pairs", default=DEFAULT_PAIRS, help="as t4:d4,t2@0:d2@2 (default: %(default)s)")
    measured.add_argument("--methods", metavar="A,B", help="default: all that the device has")
    measured.add_argument("--size-mib", type=_count, default=1024, metavar="MIB", help="of the weights")
    measured.add_argument("--hidden", type=_count, metavar="N", help="the model's hidden size")
    measured.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    measured.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    measured.add_argument("--staging-mib", type=_count, default=256, metavar="MIB", help="per rank")
    simulated = parser.add_argument_group("simulated")
    simulated.add_argument("--link-gb-s", type=_rate, default=450.0, metavar="GB_S", help="GPU to its node")
    simulated.add_argument("--nic-gb-s", type=_rate, default=50.0, metavar="GB_S", help="GPU to other nodes")
    simulated.add_argument("--scenarios", metavar="A,B", help="default: all")
    return parser.parse_args(list(argv))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 30:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e9:
        raise argparse.ArgumentTypeError(f"expected GB/s above 0, got {text!r}")
    return rate


def _measure(arguments: argparse.Namespace) -> int:
    from torch.multiprocessing.spawn import ProcessException

    from realrl.apps.benchmarks import report
    from realrl.apps.benchmarks.realloc import measure

    settings = _settings(arguments)
    print(report.machine(), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    try:
        for rows in measure(settings):
            text = (
                "\n".join(map(report.json_line, rows)) if arguments.json else "\n" + report.pair_table(rows)
            )
            print(text.rstrip("\n"), flush=True)
    except ProcessException as error:
        return complain(str(error).strip().splitlines()[-1], FAILED)
    return OK


def _settings(arguments: argparse.Namespace):
    from realrl.apps.benchmarks.realloc import Settings, with_floors
    from realrl.apps.benchmarks.subject import DTYPES, decoder_of_size, parse_pairs

    _check_device(arguments.device, arguments.workers)
    decoder = decoder_of_size(arguments.size_mib << 20, DTYPES[arguments.dtype], arguments.hidden)
    return Settings(
        pairs=tuple(parse_pairs(arguments.pairs, decoder, arguments.workers)),
        methods=with_floors(_methods(arguments.methods, arguments.device)),
        dtype=arguments.dtype,
        workers=arguments.workers,
        rounds=arguments.rounds,
        staging_bytes=arguments.staging_mib << 20,
        device=arguments.device,
    )


def _check_device(device: str, workers: int) -> None:
    import torch

    if device == "cuda" and (num_gpus := torch.cuda.device_count()) < workers:
        raise ValueError(
            f"--device: {workers} workers need as many GPUs, this machine has {num_gpus}; lower --workers"
        )


def _methods(text: str | None, device: str) -> list[str]:
    from realrl.apps.benchmarks.methods import CPU_ONLY, CUDA_ONLY, METHODS

    able = [name for name in METHODS if name not in (CUDA_ONLY if device == "cpu" else CPU_ONLY)]
    names = able if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in able:
            raise ValueError(f"--methods: expected some of {', '.join(able)}, got {name!r}")
    return names


def _boxes(arguments: argparse.Namespace) -> int:
    import torch

    from realrl.apps.benchmarks import boxes, report

    _check_device(arguments.device, 1)
    print(report.machine(), file=sys.stderr if arguments.json else sys.stdout, flush=True)
    rows = boxes.measure(torch.device(arguments.device), arguments.rounds)
    sys.stdout.write(
        "".join(report.json_line(row) + "\n" for row in rows) if arguments.json else boxes.render(rows)
    )
    return OK


def _simulate(arguments: argparse.Namespace) -> int:
    from realrl.apps.benchmarks import simulate

    scenarios = simulate.choose(arguments.scenarios)
    rates = {"link_bytes_s": arguments.link_gb_s * 1e9, "nic_bytes_s": arguments.nic_gb_s * 1e9}
    sys.stdout.write(simulate.render(scenarios, rates, as_json=arguments.json))
    return OK


if __name__ == "__main__":
    sys.exit(main())
