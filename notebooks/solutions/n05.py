"""The solutions of notebook 05."""


def greedy(step, prompt, eos, limit):
    written = []
    while len(written) < limit:
        token = int(step([*prompt, *written]).argmax())
        if token == eos:
            break
        written.append(token)
    return written


def computed(prompt, new, cache):
    return prompt + new - 1 if cache else sum(prompt + i for i in range(new))


def cache_bytes(layers, heads, head_width, positions, bytes_per_number):
    return 2 * layers * heads * head_width * positions * bytes_per_number


def banned(tokens, n):
    if len(tokens) < n:
        return set()
    last = tokens[len(tokens) - n + 1 :]
    return {tokens[i + n - 1] for i in range(len(tokens) - n + 1) if tokens[i : i + n - 1] == last}


SOLUTIONS = {"05.1": greedy, "05.2": computed, "05.3": cache_bytes, "05.4": banned}
