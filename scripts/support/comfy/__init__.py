"""scripts/test-comfyui: a ComfyUI on the stand-in, driven by its HTTP API."""
