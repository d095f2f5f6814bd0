"""The programs of scripts/wild: other people's libraries, with layers of published shapes.

Few layers, small vocabularies and random weights, so that nothing is downloaded and one
program takes seconds. Not here: how often they run and on which cards (shapes.py).
A step ends when its result is on the host.
"""

import os
import tempfile

import torch


class Program:
    """What holds weights, how they come onto the card, and a step."""

    def __init__(self, parts, step, place=None):
        self.parts, self.step = parts, step
        self.place = place or (lambda: [part.to("cuda") for part in parts])


def tokens(seed, *shape, vocabulary=8000):
    return torch.randint(3, vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def logits(model, length=16):
    """One forward pass over a prompt, a new one for each step."""
    return Program([model.eval()],
                   lambda i: model(input_ids=tokens(i, 1, length).cuda())[0].float().cpu())


# --- transformers ------------------------------------------------------------------

def gpt2_model():
    from transformers import GPT2Config, GPT2LMHeadModel
    return GPT2LMHeadModel(GPT2Config(vocab_size=8192, n_layer=9))


def gpt2():
    return logits(gpt2_model())


def llama_model(layers=5):
    # Llama 3.2's ratio of heads; a width that 15 % of so few layers can hold.
    from transformers import LlamaConfig, LlamaForCausalLM
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=8192, hidden_size=1024, intermediate_size=4096, num_hidden_layers=layers,
        num_attention_heads=16, num_key_value_heads=4))


def llama():
    return logits(llama_model())


def qwen_model():
    # Qwen2.5 0.5B.
    from transformers import Qwen2Config, Qwen2ForCausalLM
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=8192, hidden_size=896, intermediate_size=4864, num_hidden_layers=5,
        num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True))


def qwen():
    return logits(qwen_model())


def bert():
    from transformers import BertConfig, BertModel
    return logits(BertModel(BertConfig(vocab_size=8192, num_hidden_layers=9)), length=32)


def t5():
    # T5-base.
    from transformers import T5Config, T5ForConditionalGeneration
    model = T5ForConditionalGeneration(T5Config(
        vocab_size=8192, d_model=768, d_ff=3072, num_heads=12, num_layers=4)).eval()
    return Program([model], lambda i: model(
        input_ids=tokens(i, 1, 24).cuda(),
        decoder_input_ids=tokens(100 + i, 1, 8).cuda()).logits.cpu())


def whisper():
    # Whisper small, a second of sound instead of thirty.
    from transformers import WhisperConfig, WhisperForConditionalGeneration
    model = WhisperForConditionalGeneration(WhisperConfig(
        vocab_size=8192, d_model=768, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=12, decoder_attention_heads=12, encoder_ffn_dim=3072,
        decoder_ffn_dim=3072, max_source_positions=50, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1)).eval()
    return Program([model], lambda i: model(
        input_features=noise(i, 1, 80, 100).cuda(),
        decoder_input_ids=tokens(i, 1, 8).cuda()).logits.cpu())


def mixtral():
    # Mixtral's ratio of widths; the experts one after another.
    from transformers import MixtralConfig, MixtralForCausalLM
    return logits(MixtralForCausalLM(MixtralConfig(
        vocab_size=8192, hidden_size=512, intermediate_size=1792, num_hidden_layers=4,
        num_attention_heads=16, num_key_value_heads=4, num_local_experts=8,
        experts_implementation="eager")), length=8)


def generated(model, **settings):
    """One answer of eight tokens to a prompt, by the library's own loop."""
    model = model.eval()

    def step(i):
        prompt = tokens(i, 1, 8).cuda()
        return model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, min_new_tokens=8,
            pad_token_id=0, eos_token_id=None, **settings).cpu()
    return Program([model], step)


def generate_greedy():
    return generated(llama_model(), do_sample=False)


def generate_static():
    return generated(qwen_model(), do_sample=False, cache_implementation="static",
                     disable_compile=True)


def generate_beams():
    return generated(gpt2_model(), do_sample=False, num_beams=2)


# --- diffusers ---------------------------------------------------------------------

def flux():
    # Flux: two kinds of blocks, heads of 128; a third of the heads.
    from diffusers import FluxTransformer2DModel
    model = FluxTransformer2DModel(
        in_channels=64, num_layers=2, num_single_layers=3, attention_head_dim=128,
        num_attention_heads=8, joint_attention_dim=1024, pooled_projection_dim=768,
        guidance_embeds=True).eval()
    text, pooled = noise(1, 1, 16, 1024), noise(2, 1, 768)
    places = torch.zeros(16, 3)

    def step(i):
        return model(
            hidden_states=noise(i, 1, 16, 64).cuda(), encoder_hidden_states=text.cuda(),
            pooled_projections=pooled.cuda(), timestep=torch.tensor([1 - i / 20]).cuda(),
            img_ids=places.cuda(), txt_ids=places.cuda(),
            guidance=torch.tensor([3.5]).cuda()).sample.cpu()
    return Program([model], step)


def unet():
    # Stable Diffusion 1.5's blocks, narrower, one layer to a block.
    from diffusers import UNet2DConditionModel
    model = UNet2DConditionModel(
        block_out_channels=(128, 256, 512, 512), layers_per_block=1, cross_attention_dim=768,
        attention_head_dim=8).eval()
    text = noise(1, 1, 16, 768)
    return Program([model], lambda i: model(
        noise(i, 1, 4, 16, 16).cuda(), torch.tensor(10 * i).cuda(), text.cuda()).sample.cpu())


def decoder_of_images():
    # The decoder of Stable Diffusion's autoencoder, whole.
    from diffusers import AutoencoderKL
    model = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4).eval()
    return Program([model], lambda i: model.decode(noise(i, 1, 4, 8, 8).cuda()).sample.cpu())


# --- accelerate, peft, safetensors, torch itself ------------------------------------

def cpu_offload():
    """accelerate moves the weights itself; we must not be in its way."""
    from accelerate import cpu_offload as offload
    program = logits(qwen_model())
    program.place = lambda: offload(program.parts[0], torch.device("cuda"))
    return program


def adapters():
    """Low-rank changes of each layer, merged and taken away."""
    from peft import LoraConfig, get_peft_model
    model = get_peft_model(gpt2_model(), LoraConfig(
        r=8, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, init_lora_weights=False)).eval()

    def step(i):
        if i == 3:
            model.merge_adapter()
        if i == 6:
            model.unmerge_adapter()
        return model(input_ids=tokens(i, 1, 16).cuda()).logits.cpu()
    return Program([model], step)


def from_file(save, read):
    """A model whose weights are read anew, over those that are on the card already."""
    model = gpt2_model()
    path = os.path.join(tempfile.mkdtemp(prefix="autooffload-wild-"), "weights")
    save(model, path)
    program = logits(model)
    place = program.place

    def placed():
        place()
        read(model, path)
        os.unlink(path)
    program.place = placed
    return program


def safetensors_file():
    from safetensors.torch import load_model, save_model
    return from_file(save_model, lambda model, path: load_model(model, path, device="cuda"))


def mapped_file():
    return from_file(lambda model, path: torch.save(model.state_dict(), path),
                     lambda model, path: model.load_state_dict(torch.load(path, mmap=True)))


MAKE = {
    "gpt2": gpt2, "llama": llama, "qwen": qwen, "bert": bert, "t5": t5, "whisper": whisper,
    "mixtral": mixtral, "generate-greedy": generate_greedy, "generate-static": generate_static,
    "generate-beams": generate_beams, "flux": flux, "unet": unet, "vae": decoder_of_images,
    "cpu-offload": cpu_offload, "adapters": adapters, "safetensors": safetensors_file,
    "mmap": mapped_file,
}
