"""Where the stand-in's libraries lie: the rule of standin/run, for those who read them."""

import os
import pathlib


def libraries(root):
    version = os.environ.get("STANDIN_TORCH")
    folder = f"lib-{version}" if version else "lib"
    return pathlib.Path(os.environ.get("STANDIN_LIB_DIR") or root / "target" / "standin" / folder)
