"""The Open Inference Protocol v2 over gRPC, an extra: another way in, to the same routes under the same protection."""
