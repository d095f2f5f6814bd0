"""What scripts/test-comfyui asks of the ComfyUI it has started, over a route of its own.

Copied into `custom_nodes` of the temporary copy. It replaces nothing of ComfyUI: it switches
cuDNN off, which the stand-in does not have, and reads the stand-in's account.
"""

import ctypes
import json

import torch
from aiohttp import web
from server import PromptServer

torch.backends.cudnn.enabled = False

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/autooffload-test/account")
async def account(_request):
    torch.cuda.synchronize()
    read = ctypes.CDLL("libcuda.so.1").standin_account_json
    read.argtypes, read.restype = [ctypes.c_char_p, ctypes.c_size_t], ctypes.c_size_t
    buffer = ctypes.create_string_buffer(read(None, 0) + 4096)
    read(buffer, len(buffer))
    with open("/proc/self/status") as file:
        told = dict(line.split(":", 1) for line in file)
    # The stand-in keeps the card's memory in shared memory, counted once for each address.
    rss = sum(int(told[kind].split()[0]) << 10 for kind in ("RssAnon", "RssFile"))
    return web.json_response(json.loads(buffer.value) | {"rss": rss})
