"""Writes the model files of scripts/test-comfyui: published layers, fewer of them, random weights.

    python -m support.comfy.checkpoints COMFYUI MODELS SHAPE…     (in scripts/)

The classes are those of the ComfyUI that is tested, so the names in the files are what it
expects; it recognises each model by the shapes that it finds. What is there already is kept.
"""

import json
import os
import pathlib
import sys

import torch


def sd15():
    """Stable Diffusion 1.5: widths of three of its four levels, one layer to a block instead of
    two; its text encoder and its autoencoder whole."""
    return {"checkpoints/sd15.safetensors": {
        "model.diffusion_model.": unet(
            in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1, 1, 1],
            channel_mult=[1, 2, 4], transformer_depth=[1, 1, 1], transformer_depth_output=[1] * 6,
            transformer_depth_middle=1, context_dim=768, num_heads=8),
        "cond_stage_model.transformer.": clip_l(),
        "first_stage_model.": autoencoder(4)},
        "loras/sd15.safetensors": {"": lora()}}


def flux():
    """Flux: both kinds of blocks, heads of 128, half the width; CLIP alone as text encoder."""
    from comfy.ldm.flux.model import Flux
    return {"diffusion_models/flux.safetensors": {"": Flux(
        image_model="flux", in_channels=16, out_channels=16, patch_size=2, vec_in_dim=768,
        context_in_dim=768, hidden_size=1536, mlp_ratio=4.0, num_heads=12, depth=2,
        depth_single_blocks=4, axes_dim=[16, 56, 56], theta=10000, qkv_bias=True, txt_ids_dims=[],
        guidance_embed=True, **plain())},
        "text_encoders/clip_l.safetensors": {"": clip_l()},
        "vae/flux.safetensors": {"": autoencoder(16)}}


SHAPES = {"sd15": sd15, "flux": flux}


def plain():
    import comfy.ops
    return {"dtype": torch.float16, "device": "meta", "operations": comfy.ops.disable_weight_init}


def unet(**config):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    return UNetModel(image_size=32, use_spatial_transformer=True, legacy=False, **config, **plain())


def clip_l():
    import comfy.clip_model
    import comfy.sd1_clip
    file = pathlib.Path(comfy.sd1_clip.__file__).with_name("sd1_clip_config.json")
    return comfy.clip_model.CLIPTextModel(json.loads(file.read_text()), **plain())


def autoencoder(channels):
    from comfy.ldm.models.autoencoder import AutoencoderKL, AutoencodingEngine
    layers = {"double_z": True, "z_channels": channels, "resolution": 256, "in_channels": 3,
              "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2,
              "attn_resolutions": [], "dropout": 0.0}
    with torch.device("meta"):
        if channels == 4:
            return AutoencoderKL(ddconfig=layers, embed_dim=4)
        sampler = "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"
        coder = "comfy.ldm.modules.diffusionmodules.model."
        return AutoencodingEngine(
            regularizer_config={"target": sampler},
            encoder_config={"target": coder + "Encoder", "params": layers},
            decoder_config={"target": coder + "Decoder", "params": layers})


def lora():
    """Low-rank changes of the middle block's attention."""
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_"
    layers = {}
    for part in ("attn1_to_q", "attn1_to_k", "attn1_to_v", "attn1_to_out_0"):
        layers[f"{name}{part}.lora_down.weight"] = torch.empty(8, 1280, device="meta")
        layers[f"{name}{part}.lora_up.weight"] = torch.empty(1280, 8, device="meta")
    return layers


def filled(shapes, prefix, numbers):
    """Random half-precision weights in place of the shapes, of a size that keeps sums finite."""
    for name, shape in shapes.items():
        if "position_ids" in name:
            continue
        if shape.dim() < 2:
            ones = name.endswith((".weight", ".scale"))
            tensor = torch.ones(shape.shape) if ones else torch.zeros(shape.shape)
        else:
            inputs = shape[0].numel()
            tensor = torch.randn(shape.shape, generator=numbers) * (0.5 if "embed" in name.lower()
                                                                    else 1.0) / inputs ** 0.5
        yield prefix + name, tensor.half()


def write(path, parts):
    from safetensors.torch import save_file
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = torch.Generator().manual_seed(len(path.name))
    tensors = {}
    for prefix, model in parts.items():
        shapes = model if isinstance(model, dict) else model.state_dict()
        tensors.update(filled(shapes, prefix, numbers))
    building = path.with_name(f"{path.name}.{os.getpid()}")
    save_file(tensors, building)
    building.rename(path)
    print(f"{path.name}: {sum(one.nbytes for one in tensors.values()) >> 20} MiB", flush=True)


def main():
    comfyui, models, *shapes = sys.argv[1:]
    sys.argv[1:] = ["--cpu"]  # ComfyUI reads it when it is imported
    sys.path.insert(0, comfyui)
    import comfy.options
    comfy.options.enable_args_parsing()
    with torch.no_grad():
        for shape in shapes:
            for name, parts in SHAPES[shape]().items():
                path = pathlib.Path(models) / name
                if not path.exists():
                    write(path, parts)


if __name__ == "__main__":
    main()
