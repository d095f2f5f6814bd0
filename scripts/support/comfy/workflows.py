"""The workflows of scripts/test-comfyui, as ComfyUI's HTTP API takes them.

Small pictures and few steps: what crosses the link depends on weights, not on pixels. Each
number gives another text and another seed, so that no run is answered from ComfyUI's cache.
"""

SIDE, STEPS = 64, 3


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def sd15(number, batch=1, strength=None, steps=STEPS):
    """txt2img with a decode; `strength`: of a LoRA between the loader and the sampler."""
    nodes = {
        "sd_loader": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "sd_empty": node("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=batch),
    }
    model, clip = ["sd_loader", 0], ["sd_loader", 1]
    if strength is not None:
        nodes["sd_lora"] = node("LoraLoaderModelOnly", model=model, strength_model=strength,
                                lora_name="sd15.safetensors")
        model = ["sd_lora", 0]
    return nodes | texts("sd", clip, number) | sampled(
        "sd", number, model, ["sd_empty", 0], ["sd_loader", 2], steps, cfg=7.0)


def with_node(number, enable):
    """The node "Auto CPU Offload" between the loader and the sampler."""
    nodes = sd15(number)
    nodes["sd_sampler"]["inputs"]["model"] = ["sd_node", 0]
    return nodes | {"sd_node": node("AutoCPUOffload", model=["sd_loader", 0], window_size=8,
                                    enable=enable, pin_memory=False)}


def shown():
    """For the eye: both nodes and what they say, each node with its place."""
    def at(x, y, wide, high, kind, **inputs):
        return node(kind, **inputs) | {"place": [x, y, wide, high]}
    return {
        "1": at(20, 0, 300, 100, "CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "2": at(350, 0, 290, 150, "AutoCPUOffload", model=["1", 0], window_size=8, enable=True,
                pin_memory=True),
        "3": at(670, 0, 330, 150, "PreviewAny", source=["2", 1]),
        "4": at(20, 180, 300, 120, "CLIPTextEncode", clip=["1", 1], text="a house by a lake"),
        "5": at(20, 350, 300, 120, "CLIPTextEncode", clip=["1", 1], text="blurred"),
        "6": at(20, 520, 300, 110, "EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1),
        "7": at(350, 200, 290, 270, "KSampler", model=["2", 0], positive=["4", 0],
                negative=["5", 0], latent_image=["6", 0], seed=1, steps=8, cfg=7.0,
                sampler_name="euler", scheduler="simple", denoise=1.0),
        "8": at(670, 200, 330, 80, "AutoCPUOffloadLastRun", latent=["7", 0]),
        "9": at(1030, 0, 360, 270, "PreviewImage", images=["8", 1]),
        "10": at(670, 330, 330, 200, "PreviewAny", source=["8", 2]),
        "11": at(350, 520, 290, 60, "VAEDecode", samples=["8", 0], vae=["1", 2]),
        "12": at(1030, 320, 360, 310, "SaveImage", images=["11", 0], filename_prefix="shown"),
    }


def flux(number, batch=1, steps=STEPS):
    nodes = {
        "fx_loader": node("UNETLoader", unet_name="flux.safetensors", weight_dtype="default"),
        "fx_clip": node("CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion"),
        "fx_vae": node("VAELoader", vae_name="flux.safetensors"),
        "fx_empty": node("EmptySD3LatentImage", width=SIDE, height=SIDE, batch_size=batch),
    }
    return nodes | texts("fx", ["fx_clip", 0], number) | sampled(
        "fx", number, ["fx_loader", 0], ["fx_empty", 0], ["fx_vae", 0], steps, cfg=1.0)


def both(number):
    """Two models in one workflow."""
    return sd15(number) | flux(number)


def texts(name, clip, number):
    return {f"{name}_yes": node("CLIPTextEncode", clip=clip, text=f"a house by a lake, {number}"),
            f"{name}_no": node("CLIPTextEncode", clip=clip, text=f"blurred, {number}")}


def sampled(name, number, model, latent, vae, steps, cfg):
    return {
        f"{name}_sampler": node(
            "KSampler", model=model, positive=[f"{name}_yes", 0], negative=[f"{name}_no", 0],
            latent_image=latent, seed=number, steps=steps, cfg=cfg, sampler_name="euler",
            scheduler="simple", denoise=1.0),
        f"{name}_latent": node("SaveLatent", samples=[f"{name}_sampler", 0],
                               filename_prefix=f"{name}"),
        f"{name}_decoded": node("VAEDecode", samples=[f"{name}_sampler", 0], vae=vae),
        f"{name}_image": node("SaveImage", images=[f"{name}_decoded", 0],
                              filename_prefix=f"{name}"),
    }
