"""Takes its time to clean up on SIGTERM: `tree_sigterm.py FILE` then writes FILE and exits with 0."""

import signal
import sys
import time
from pathlib import Path


def clean_up(*_: object) -> None:
    """Writes the file after half a second."""
    time.sleep(0.5)
    Path(sys.argv[1]).write_text("cleaned up")
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, clean_up)
    print("ready", flush=True)
    time.sleep(60)
