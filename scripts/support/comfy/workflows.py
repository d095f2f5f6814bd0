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
