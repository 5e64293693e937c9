"""What `make binder` makes of the answers that it gets; it runs the book itself."""


import binder
import pytest

LOCK = """\
# platform: linux-64
@EXPLICIT
https://example.org/linux-64/python-3.11.14-hfe2f287_1_cpython.conda#0f
https://example.org/noarch/python_abi-3.11-8_cp311.conda#0f
https://example.org/linux-64/ld_impl_linux-64-2.44-ha97dd6f_2.conda#0f
https://example.org/noarch/typing-extensions-4.15.0-h396c80c_0.conda#0f
https://example.org/noarch/typing_extensions-4.15.0-pyhcf101f3_0.conda#0f
https://example.org/linux-64/brotli-python-1.1.0-py311h1ddb823_4.conda#0f
https://example.org/noarch/python-json-logger-2.0.7-pyhd8ed1ab_0.conda#0f
https://example.org/noarch/defusedxml-0.7.1-pyhd8ed1ab_0.tar.bz2#0f
"""
ANSWER = {"pack": "PythonBuildPack", "python": "3.11", "steps": [binder.INSTALL], "also": []}


def test_python_packages_of_a_lock_file_are_told_from_others():
    pins, others = binder.base_packages(LOCK)
    assert pins == ["typing_extensions==4.15.0", "brotli==1.1.0", "python-json-logger==2.0.7",
                    "defusedxml==0.7.1"]
    assert others == ["python", "python_abi", "ld_impl_linux-64", "typing-extensions"]


def test_the_right_answer_has_no_fault():
    assert list(binder.faults(ANSWER, "3.11")) == []


@pytest.mark.parametrize(("wrong", "said"), [
    ({"pack": "CondaBuildPack"}, "CondaBuildPack"),
    ({"python": "3.10"}, "3.10"),
    ({"steps": []}, "[]"),
    ({"steps": [binder.INSTALL, "${KERNEL_PYTHON_PREFIX}/bin/pip install --no-cache-dir ."]},
     "--no-cache-dir ."),
    ({"also": ["postBuild"]}, "postBuild"),
])
def test_a_wrong_answer_is_a_fault(wrong, said):
    found = list(binder.faults(ANSWER | wrong, "3.11"))
    assert len(found) == 1 and said in found[0]


def test_an_extension_that_jupyterlab_refuses_is_lacking():
    listed = """JupyterLab v4.5.11
        jupyterlab-myst v2.7.0 \x1b[32menabled\x1b[0m \x1b[32mOK\x1b[0m (python, jupyterlab_myst)
        anywidget v0.11.0 \x1b[32menabled\x1b[0m \x1b[32mOK\x1b[0m
        @jupyter-widgets/jupyterlab-manager v5.0.16 enabled OK (python, jupyterlab_widgets)
"""
    assert binder.lacking(listed) == []
    disabled = listed.replace("v0.11.0 \x1b[32menabled", "v0.11.0 \x1b[31mdisabled")
    assert binder.lacking(disabled) == ["anywidget"]
    refused = listed.replace("enabled OK", "enabled X")
    assert binder.lacking(refused) == ["@jupyter-widgets/jupyterlab-manager"]
    assert binder.lacking("JupyterLab v4.5.11") == list(binder.EXTENSIONS)


def test_only_conflicts_with_a_reason_are_let_pass():
    known = "notebook 7.4.7 has requirement jupyterlab<4.5,>=4.4.9, but you have jupyterlab 4.5.11."
    other = "anywidget 0.11.0 has requirement ipywidgets>=9, but you have ipywidgets 8.1.9."
    assert binder.conflicts(["No broken requirements found."]) == binder.conflicts([known]) == []
    assert binder.conflicts([known, other]) == [other]
