"""The `shardsync` command: finds the subcommand, and turns failures into words and exit codes.

Subcommands are imported when asked for: `status` should not pay for asyncio.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from shardsync import __version__
from shardsync.cli.invocation import Invocation
from shardsync.cli.output import tell, tell_error
from shardsync.clock import SystemClock
from shardsync.errors import ShardsyncError, UsageError

_INTERRUPTED = 130
_COMMANDS = {
    "mirror": "shardsync.cli.mirror:mirror",
    "up": "shardsync.cli.lifecycle:up",
    "down": "shardsync.cli.lifecycle:down",
    "reload": "shardsync.cli.reload:reload",
    "status": "shardsync.cli.status:status",
    "top": "shardsync.cli.status:top",
    "flush": "shardsync.cli.flush:flush",
    "replay": "shardsync.cli.replay:replay",
    "reconcile": "shardsync.cli.reconcile:reconcile",
    "verify": "shardsync.cli.verify:verify",
    "trace": "shardsync.cli.trace:trace",
    "journal": "shardsync.cli.journal:journal",
    "check": "shardsync.cli.check:check",
    "plan": "shardsync.cli.plan:plan",
    "config": "shardsync.cli.config:config",
    "tune": "shardsync.cli.tune:tune",
    "pause": "shardsync.cli.nodes:pause",
    "resume": "shardsync.cli.nodes:resume",
}


class Commands(click.Group):
    """The subcommands, each imported when it is asked for. By inheritance because click asks."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 (click's signature)
        cmd_name: str,
    ) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shardsync")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file (else $SHARDSYNC_CONFIG, ./shardsync.toml, /etc/shardsync/).",
)
@click.pass_context
def shardsync(ctx: click.Context, config: Path | None) -> None:
    """Keep many web nodes in step with one large tree of files, seconds behind.

    Try it without any settings:  shardsync mirror /var/www/html web1:/var/www/html
    """
    ctx.obj = Invocation(config=config, env=os.environ, clock=SystemClock())


def main() -> None:
    """Entry point of the `shardsync` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code and never raises."""
    try:
        result = shardsync.main(list(arguments), prog_name="shardsync", standalone_mode=False)
        sys.stdout.flush()
    except ShardsyncError as error:
        tell_error(error)
        return error.exit_code
    except click.ClickException as error:
        said = io.StringIO()
        error.show(file=said)
        # It repeats arguments, which `shardsync trace *` takes from the tree.
        tell(said.getvalue().rstrip("\n"))
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt):
        tell("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        return _reader_gone()
    except Exception:  # noqa: BLE001 (the last place where a bug can be told in words)
        tell(traceback.format_exc())
        tell("shardsync: " + ShardsyncError.hint)
        return ShardsyncError.exit_code
    return result if isinstance(result, int) else 0


def _reader_gone() -> int:
    """`shardsync journal | head`: no error; and no second one when Python flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    main()
