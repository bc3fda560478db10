"""Recording. torch, transformers and pynvml are imported here, inside functions, and nowhere below."""
