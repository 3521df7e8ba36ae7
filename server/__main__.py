"""`python -m server`: serve until a signal."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from server.launch import serve
from server.settings import SettingsError, load_settings


def main(
    config: Annotated[Path | None, typer.Option(help="File of settings, TOML.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything the server keeps.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer.")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    status: int | str
    try:
        status = serve(load_settings(config, {"data_dir": data_dir, "listen.port": port, "listen.workers": workers}))
    except (SettingsError, OSError) as error:
        status = str(error)
    sys.exit(status)


if __name__ == "__main__":
    typer.run(main)
