"""How a sentence with a blank becomes two beginnings and one ending."""


def gold(doc):
    return int(doc["answer"]) - 1


def beginnings(doc):
    start = doc["sentence"].split("_")[0]
    return [start + doc["option1"], start + doc["option2"]]


def ending(doc):
    return doc["sentence"].split("_")[1].strip()
