"""`python -m relay mx DOMAIN`: the delivery plan as it would be taken; `python -m relay schedule`: the retries.

Exit codes: 0 done, 1 no delivery for sure, 2 the call is wrong, 74 the answer could not be
written, 75 nobody knows now, try again later, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence

from certs.program import ended, port
from relay.mx import Planner
from relay.plan import NoRoute
from relay.relaying import Relaying
from relay.retry import RetryPolicy, is_time_to_warn, schedule
from smtpd_core.wire.shown import shown

# EX_IOERR: neither of the answers that 0, 1 and 75 are.
UNSAID = 74

# Attempts that are printed.
MOST = 1000

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m relay", description="how mail is sent on")
    commands = parser.add_subparsers(dest="command", required=True)
    mx = _command(commands, "mx", "the mail servers of a domain, in the order they would be tried", "example.test")
    mx.add_argument("domain", type=_domain, help="a domain, or an address literal in brackets")
    mx.add_argument("--dns-server", default="", metavar="HOST[:PORT]", help="ask this server, not the system's")
    mx.add_argument("--smarthost", default="", metavar="HOST:PORT", help="plan for a smart host instead")
    mx.add_argument("--port", type=port, default=25, help="of the mail servers (25)")
    mx.add_argument("--hostname", default=platform.node() or "localhost", help="our own name among the servers")
    plan = _command(
        commands, "schedule", "when a message is tried, warned of and given up", "--retry 5m,1h --expire 2d"
    )
    plan.add_argument("--retry", default="", metavar="5m,10m,...", help="waits; the last repeats")
    plan.add_argument("--expire", default="", metavar="5d", help="when a message is given up")
    plan.add_argument("--delay-warning", default="", metavar="4h", help="when its sender is warned; 0 is never")
    return ended(lambda: _run(parser.parse_args(arguments)), lead="python -m relay", failed=UNSAID)


def _run(options: argparse.Namespace) -> int:
    try:
        return _mx(options) if options.command == "mx" else _schedule(options)
    except UnicodeError:
        raise
    except ValueError as error:
        print(shown(f"python -m relay: {error}"), file=sys.stderr)
        return 2


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, meaning: str, example: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=meaning,
        description=f"{meaning[0].upper()}{meaning[1:]}.",
        epilog=f"example:\n  python -m relay {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    return command


def _mx(options: argparse.Namespace) -> int:
    """0 for a plan, 1 where there is none for sure, 75 (EX_TEMPFAIL) where nobody knows now."""
    relaying = Relaying(hello=options.hostname, dns_server=options.dns_server, port=options.port)
    destination = f"smtp:{options.smarthost}" if options.smarthost else f"mx:{options.domain}"
    try:
        plan = Planner(relaying).plan(destination)
    except NoRoute as error:
        _say(
            options, error.steps, [], f"{'undeliverable' if error.permanent else 'not now'}: {error} ({error.enhanced})"
        )
        return 1 if error.permanent else 75
    _say(options, plan.steps, [str(hop) for hop in plan.hops], "")
    return 0


def _say(options: argparse.Namespace, steps: Sequence[str], hops: list[str], trouble: str) -> None:
    if options.json:
        print(json.dumps({"steps": list(steps), "hops": hops, "trouble": trouble}, indent=2))
    else:
        print("\n".join(map(shown, [*steps, trouble] if trouble else steps)))


def _schedule(options: argparse.Namespace) -> int:
    default = RetryPolicy()
    policy = RetryPolicy(
        schedule=tuple(map(seconds, options.retry.split(","))) if options.retry else default.schedule,
        expire=seconds(options.expire) if options.expire else default.expire,
        delay_warning=seconds(options.delay_warning) if options.delay_warning else default.delay_warning,
    )
    moments = schedule(policy, MOST)
    before = [-1.0, *moments]
    warnings = [n for n, at in enumerate(moments, 1) if is_time_to_warn(policy, before[n - 1], 0.0, at)]
    if options.json:
        print(json.dumps({"attempts": moments, "warned_at_attempt": warnings[0] if warnings else None}))
        return 0
    for number, moment in enumerate(moments, 1):
        notes = ["the sender is warned"] if number in warnings[:1] else []
        if number == len(moments) and number < MOST:
            notes.append("the last: then it is given up and returned")
        print(f"attempt {number:3}  after {spoken(moment)}{'  ' if notes else ''}{'; '.join(notes)}")
    if len(moments) == MOST:
        print(f"and so on until {spoken(policy.expire)}")
    print(f"each wait is stretched at random by up to {policy.jitter:.0%}")
    return 0


def seconds(text: str) -> float:
    """ "90", "30s", "5m", "2h", "5d". Raises ValueError."""
    text = text.strip()
    number, unit = (text[:-1], text[-1]) if text and text[-1] in _UNITS else (text, "s")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        raise ValueError(f"{text!r} is no duration; write 90, 30s, 5m, 2h or 5d") from None


def _domain(text: str) -> str:
    if not text.strip("."):
        raise argparse.ArgumentTypeError(f"{text!r} is no domain")
    return text


def spoken(moment: float) -> str:
    days, rest = divmod(int(moment), 86_400)
    hours, rest = divmod(rest, 3600)
    return f"{days}d {hours:02}:{rest // 60:02}:{rest % 60:02}"


if __name__ == "__main__":
    sys.exit(main())
