"""The shapes of device_check in PyTorch: transformers, PEFT, torch.func. One JSON line a stage.

    pip install torch transformers peft
    python examples/device_check/peer.py --device cuda --sizes 135M,1B,7B --dtypes float32,bfloat16

The same work as the Rust program: batches of 8 rows of 128 tokens, r = 8 on q_proj and v_proj, four class tokens read at the last
position; training with AdamW; the sampled Fisher's Kronecker sums by hooks; the Jacobians of all class logits by `torch.func`. Random weights.
"""

import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

SIZES = {
    "tiny": (64, 172, 2, 4, 2, 512, True),
    "135M": (576, 1536, 30, 9, 3, 49152, True),
    "1B": (2048, 8192, 16, 32, 8, 128256, True),
    "7B": (4096, 11008, 32, 32, 32, 32000, False),
}
TOKENS, CLASSES = 128, 4


def model_of(size, dtype, device):
    hidden, inner, layers, heads, keys, vocabulary, tied = SIZES[size]
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, vocab_size=vocabulary, tie_word_embeddings=tied,
    )
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return get_peft_model(model, lora, autocast_adapter_dtype=False).to(device)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", default="tiny")
    parser.add_argument("--dtypes", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    args = parser.parse_args()
    for size in args.sizes.split(","):
        for dtype in args.dtypes.split(","):
            measure(size, dtype, args)


def measure(size, dtype, args):
    torch.manual_seed(0)
    model = model_of(size, getattr(torch, dtype), args.device)
    vocabulary = SIZES[size][5]
    ids = torch.randint(0, vocabulary, (2 * args.batch, TOKENS), device=args.device)
    labels = (torch.arange(len(ids)) % CLASSES).to(args.device)
    batches = list(zip(ids.split(args.batch), labels.split(args.batch)))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def logits(x):
        return model(input_ids=x, logits_to_keep=1).logits[:, -1, :CLASSES].float()

    def training():
        model.train()
        for x, y in batches:
            torch.nn.functional.cross_entropy(logits(x), y).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    def inference():
        model.eval()
        with torch.no_grad():
            return [logits(x).softmax(-1).cpu() for x, _ in batches]

    def kronecker():
        model.eval()
        sums = {}

        def forward(name):
            def hook(_, inputs, output):
                x = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
                sums[name + " in"] = sums.get(name + " in", 0) + x.T @ x
                output.register_hook(lambda g: backward(name, g))
            return hook

        def backward(name, gradient):
            g = gradient.reshape(-1, gradient.shape[-1]).float()
            sums[name + " out"] = sums.get(name + " out", 0) + g.T @ g

        sites = [(n, m) for n, m in model.named_modules() if n.endswith(("lora_A.default", "lora_B.default"))]
        hooks = [m.register_forward_hook(forward(n)) for n, m in sites]
        for x, _ in batches:
            z = logits(x)
            drawn = torch.distributions.Categorical(logits=z).sample()
            torch.nn.functional.cross_entropy(z, drawn, reduction="sum").backward()
            model.zero_grad(set_to_none=True)
        for hook in hooks:
            hook.remove()
        return sums

    def jacobians():
        model.eval()
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        weights = {n: p.detach() for n, p in model.named_parameters() if n in names}

        def one(w, x):
            out = torch.func.functional_call(model, w, kwargs={"input_ids": x[None], "logits_to_keep": 1})
            return out.logits[0, -1, :CLASSES].float()

        jacobian = torch.func.vmap(torch.func.jacrev(one), in_dims=(None, 0))
        for x, _ in batches:
            jacobian(weights, x)

    stages = {
        "training": training,
        "inference": inference,
        "sampled Kronecker pass": kronecker,
        "Jacobians (of linearised prediction)": jacobians,
    }
    for stage, work in stages.items():
        synchronize = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
        try:
            work()
            synchronize()
            start, runs = time.perf_counter(), 0
            while runs == 0 or time.perf_counter() - start < args.seconds:
                work()
                synchronize()
                runs += 1
            seconds = (time.perf_counter() - start) / runs
        except Exception as reason:  # a stage that does not run is a row as well
            print(json.dumps({"size": size, "dtype": dtype, "stage": stage, "failed": str(reason)[:300]}), flush=True)
            continue
        print(json.dumps({
            "size": size, "dtype": dtype, "stage": stage, "seconds": seconds, "runs": runs, "items": len(ids),
            "items_per_second": len(ids) / seconds, "tokens_per_second": len(ids) * TOKENS / seconds,
            "torch": torch.__version__, "device": args.device,
        }), flush=True)


if __name__ == "__main__":
    main()
