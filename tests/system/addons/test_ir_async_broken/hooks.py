def fail(_env):
    msg = "no such luck"
    raise ValueError(msg)
