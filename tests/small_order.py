"""Ed25519 public keys under which anybody makes signatures that hold, and such a signature."""

ORDER_1 = b"\x01" + bytes(31)
ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
WEAK = (ORDER_1, ORDER_8)
FORGED = ORDER_1 + bytes(32)  # R of order 1 and s = 0: s·B = R + h·A for every message, where A is of order 1
