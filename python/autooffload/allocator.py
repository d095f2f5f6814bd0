"""PyTorch's allocator settings: what would end offloading is taken out, with a
line each, and `--allocator` chooses the backend. The rest stays as it is.

Torch reads the first of three variables that is set, even to nothing; versions
before 2.9 do not know the last. So each is cleaned, and taking one away must
not bring another into force that it hid.
"""

import re

VARIABLES = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_ALLOC_CONF")

CHOICES = ("keep", "native", "async")

ASYNC = "backend:cudaMallocAsync"


def adjust(env, choice, say):
    """Changes the settings in `env`; `say` gets one sentence for each change."""
    settings = {name: cleaned(name, env, choice, say) for name in VARIABLES if name in env}
    read = next(iter(settings), None)
    if read and not settings[read]:
        if not env[read].strip(" ,"):
            say(f"removed {read}, which was empty: torch refuses to start if a program "
                "appends to it")
        for name in settings:
            del env[name]
            if name != read and settings[name]:
                say(f"removed {name} as well: {read} hid it from torch")
        settings = {}
    env.update(settings)
    if choice == "async":
        name = next(iter(settings), VARIABLES[0])
        env[name] = ",".join([option for option in options_of(settings.get(name, ""))
                              if key_and_value(option)[0] != "backend"] + [ASYNC])


def cleaned(name, env, choice, say):
    """The value of one variable without what must go; as it was if nothing must."""
    kept, removed = [], False
    for option in options_of(env[name]):
        key, value = key_and_value(option)
        why = objection(key, value, choice, env)
        if why:
            say(f"removed {key}:{value} from {name}: {why}")
            removed = True
        else:
            kept.append(option)
    return ",".join(kept) if removed or not kept else env[name]


def objection(key, value, choice, env):
    """Why this option cannot stay, or None. A limit of the user's becomes the budget."""
    if key == "expandable_segments" and value == "True":
        return "memory of expandable segments could not be offloaded"
    if key == "throw_on_cudamalloc_oom" and value == "True":
        return "torch would give up before autooffload is asked to make room"
    if key == "per_process_memory_fraction":
        return "torch would give up at that share instead of offloading; " + budget(value, env)
    if key == "backend" and choice == "native" and value != "native":
        return "--allocator native"
    return None


def budget(fraction, env):
    """Makes the share that torch was to use the budget, unless there is one already."""
    try:
        share = float(fraction)
    except ValueError:
        share = 1.0
    if env.get("AUTOOFFLOAD_VRAM"):
        return f"the budget is --vram {env['AUTOOFFLOAD_VRAM']}"
    if not 0 < share < 1:
        return "the budget is the card's"
    env["AUTOOFFLOAD_VRAM"] = f"{share * 100:g}%"
    return f"it is the budget now (--vram {env['AUTOOFFLOAD_VRAM']})"


def options_of(value):
    """The options of a value; a comma inside brackets parts none."""
    parts = re.split(r",(?![^\[]*\])", value)
    return [part.strip() for part in parts if part.strip()]


def key_and_value(option):
    key, _, value = option.partition(":")
    return key.strip(), value.strip()
