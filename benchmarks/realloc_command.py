"""`bench realloc`: moving a model's weights between layouts."""

from __future__ import annotations

import argparse
import sys

from benchmarks.options import check_device, count, rate, say_machine
from realrl.apps.command_line import FAILED, OK, complain

DEFAULT_PAIRS = "t4:d4,p4:t4,t4:p4,d4:t4,p2t2:d2t2,t2@0:d2@2"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--simulate", action="store_true", help="predict for clusters that are not here")
    measured = parser.add_argument_group("measured on this machine")
    measured.add_argument("--workers", type=count, default=4, metavar="N")
    measured.add_argument("--rounds", type=count, default=5, metavar="N")
    measured.add_argument("--pairs", default=DEFAULT_PAIRS, help="as t4:d4,t2@0:d2@2 (default: %(default)s)")
    measured.add_argument("--methods", metavar="A,B", help="default: all that the device has")
    measured.add_argument("--size-mib", type=count, default=1024, metavar="MIB", help="of the weights")
    measured.add_argument("--hidden", type=count, metavar="N", help="the model's hidden size")
    measured.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    measured.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    measured.add_argument("--staging-mib", type=count, default=256, metavar="MIB", help="per rank")
    simulated = parser.add_argument_group("simulated")
    simulated.add_argument("--link-gb-s", type=rate, default=450.0, metavar="GB_S", help="GPU to its node")
    simulated.add_argument("--nic-gb-s", type=rate, default=50.0, metavar="GB_S", help="GPU to other nodes")
    simulated.add_argument("--scenarios", metavar="A,B", help="default: all")


def run(arguments: argparse.Namespace) -> int:
    return _simulate(arguments) if arguments.simulate else _measure(arguments)


def _measure(arguments: argparse.Namespace) -> int:
    from torch.multiprocessing.spawn import ProcessException

    from benchmarks import report
    from benchmarks.realloc import measure

    settings = _settings(arguments)
    say_machine(as_json=arguments.json)
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
    from benchmarks.realloc import Settings, with_floors
    from benchmarks.workload import DTYPES, decoder_of_size, parse_pairs

    check_device(arguments.device, arguments.workers)
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


def _methods(text: str | None, device: str) -> list[str]:
    from benchmarks.methods import CPU_ONLY, CUDA_ONLY, METHODS

    able = [name for name in METHODS if name not in (CUDA_ONLY if device == "cpu" else CPU_ONLY)]
    names = able if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in able:
            raise ValueError(f"--methods: expected some of {', '.join(able)}, got {name!r}")
    return names


def _simulate(arguments: argparse.Namespace) -> int:
    from benchmarks import simulate

    scenarios = simulate.choose(arguments.scenarios)
    rates = {"link_bytes_s": arguments.link_gb_s * 1e9, "nic_bytes_s": arguments.nic_gb_s * 1e9}
    sys.stdout.write(simulate.render(scenarios, rates, as_json=arguments.json))
    return OK
