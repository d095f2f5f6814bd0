"""Auto CPU Offload: nodes for a ComfyUI that was started by autooffload-launch.

Offloading needs no node. These switch it off for one model, and show the last
run. Not here: the work itself, which libautooffload.so does in this process.
"""

from .nodes import AutoCPUOffload, AutoCPUOffloadLastRun

NODE_CLASS_MAPPINGS = {
    "AutoCPUOffload": AutoCPUOffload,
    "AutoCPUOffloadLastRun": AutoCPUOffloadLastRun,
}

NODE_DISPLAY_NAME_MAPPINGS = {
    "AutoCPUOffload": "Auto CPU Offload",
    "AutoCPUOffloadLastRun": "Auto CPU Offload: Last Run",
}
