"""Search: the best prompt, model or parameters, found by asking as little as the evidence allows."""
