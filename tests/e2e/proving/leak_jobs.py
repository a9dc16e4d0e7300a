import logging


def fail(secret, password):
    raise ValueError(f"password={password!r} token={secret}")


def work(secret, mapping):
    logging.getLogger("leak.jobs").warning("working with %s", mapping)
    return secret
