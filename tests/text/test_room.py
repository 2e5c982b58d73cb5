import subprocess
import sys


def test_the_room_imports_neither_torch_nor_transformers():
    code = (
        "import sys, layerscope.text.constraints, layerscope.text.passages; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
