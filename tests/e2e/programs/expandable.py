"""The settings program with expandable segments chosen by the program itself."""

import os
import pathlib
import runpy

os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
runpy.run_path(str(pathlib.Path(__file__).with_name("settings.py")), run_name="__main__")
