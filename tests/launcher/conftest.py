"""A library that stands for ours in the launcher's tests, and an environment without settings."""

import os
import pathlib
import subprocess

import pytest


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("lib") / "libautooffload.so"
    source = pathlib.Path(__file__).with_name("preload.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


@pytest.fixture
def env(library):
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("AUTOOFFLOAD", "PYTORCH_")) and name != "LD_PRELOAD"}
    return clean | {"AUTOOFFLOAD_LIB": str(library)}
