"""What stands for objects can be named in messages."""

from palladion.scan.pickles.values import Made, Ref, is_ref, said


def test_a_call_is_named_by_what_is_called() -> None:
    ref = Ref("os", "system", None)
    assert said(Made(ref, ())) == "what os.system gives"
    assert is_ref(ref, ("os", "system"))
    assert not is_ref("os.system", ("os", "system"))
