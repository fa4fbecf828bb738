"""Functions that the test tasks name with lm-eval's `!function` tag."""


def nll(doc, results):
    (log_likelihood,) = results
    words = len(doc["text"].split())
    return {"word_perplexity": (log_likelihood, words), "nll": -log_likelihood / words}
