"""What examples/studies/generation_speed.rs measures, in llama.cpp (pip install llama-cpp-python gguf).

  python llama_cpp_speed.py MODEL.gguf PROMPT_TOKENS TOKENS [REPETITIONS]
  python llama_cpp_speed.py --widen MODEL.gguf WIDE.gguf     the same weights in f32
"""

import os
import sys
import time


def widen(source, target):
    import gguf
    from gguf.quants import dequantize

    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type", "general.quantization_version"):
            continue
        kind, of = field.types[0], field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, of)
    writer.add_file_type(0)  # all f32
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type).astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(path, prompt_tokens, tokens, repetitions):
    import llama_cpp
    import numpy

    threads = int(os.environ.get("OMP_NUM_THREADS", 2))
    model = llama_cpp.Llama(path, n_ctx=prompt_tokens + tokens, n_threads=threads, n_threads_batch=threads, verbose=False)
    prompt = [3 + (31 * t) % 400 for t in range(prompt_tokens)]
    best = (float("inf"), float("inf"))
    for _ in range(repetitions):
        answer, start = [], time.perf_counter()
        model.reset()
        model.eval(prompt)
        for n in range(tokens):
            logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
            token = int(numpy.argmax(numpy.ctypeslib.as_array(logits, (model.n_vocab(),))))
            answer.append(token)
            if n == 0:
                first = time.perf_counter() - start
            if n + 1 < tokens:
                model.eval([token])
        best = (min(best[0], first), min(best[1], time.perf_counter() - start))
    rest = (tokens - 1) / (best[1] - best[0])
    print("tokens", answer)
    print(f"llama.cpp ({llama_cpp.__version__}), {threads} threads: first token {best[0]:.3f} s, then {rest:.1f} tokens/s")


if __name__ == "__main__":
    if sys.argv[1] == "--widen":
        widen(sys.argv[2], sys.argv[3])
    else:
        measure(sys.argv[1], *[int(v) for v in sys.argv[2:5] + ["3"][len(sys.argv[2:5]) - 2:]])
