from benchmarks.mkl_on_amd import build_override, is_amd


def test_the_override_is_a_library_where_there_is_a_compiler(tmp_path, monkeypatch):
    library = build_override(tmp_path)
    assert library is None or library.stat().st_size > 0
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert build_override(tmp_path) is None
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD\n")
    assert is_amd(tmp_path / "cpuinfo") and not is_amd(tmp_path / "missing")
