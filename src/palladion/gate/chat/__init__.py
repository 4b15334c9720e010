"""Language models behind the gate: the API of OpenAI, vLLM, llama.cpp and others (docs/chat.md)."""
