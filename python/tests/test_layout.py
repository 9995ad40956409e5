"""ctypes follows the headers: sizes, places and number of all members as the compiler has them,
arguments, codes and version. $DITMOE_SOURCE is the tree."""

import os
import re
import subprocess
import tempfile
import unittest
from ctypes import Array, _Pointer, c_char_p, c_void_p, sizeof

import ditmoe
from ditmoe import _c

INCLUDE = os.path.join(os.environ["DITMOE_SOURCE"], "include")


def headers():
    text = ""
    for name in ("ditmoe.h", "ditmoe_eval.h", "ditmoe_routing.h"):
        with open(os.path.join(INCLUDE, name)) as file:
            text += file.read()
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def is_pointer(kind):
    return kind in (c_void_p, c_char_p) or issubclass(kind, _Pointer)


def program():
    """Prints "structure size" and "structure.member offset". Its initialisers, one value a member,
    do not compile where the header has a member more or less, even inside padding."""
    lines = ["#include <stddef.h>", "#include <stdio.h>", '#include "ditmoe_eval.h"',
             '#include "ditmoe_routing.h"', "int main(void) {"]
    for structure in _c.STRUCTURES:
        name, members = structure.__name__, structure._fields_
        values = ", ".join("{0}" if issubclass(kind, Array) else "0" for _, kind in members)
        lines.append(f"  struct ditmoe_{name} a_{name} = {{{values}}};")
        lines.append(f'  printf("{name} %zu\\n", sizeof a_{name});')
        lines += [f'  printf("{name}.{member} %zu\\n", offsetof(struct ditmoe_{name}, {member}));'
                  for member, _ in members]
    return "\n".join(lines + ["  return 0;", "}", ""])


def compile_and_run(text):
    with tempfile.TemporaryDirectory() as folder:
        source, binary = os.path.join(folder, "layout.c"), os.path.join(folder, "layout")
        with open(source, "w") as file:
            file.write(text)
        subprocess.run(["cc", "-std=c17", "-Wmissing-field-initializers", "-Werror", "-I", INCLUDE,
                        source, "-o", binary], check=True)
        return subprocess.run([binary], check=True, capture_output=True, text=True).stdout


class Layout(unittest.TestCase):
    def test_structures(self):
        ours = []
        for structure in _c.STRUCTURES:
            ours.append(f"{structure.__name__} {sizeof(structure)}")
            ours += [f"{structure.__name__}.{name} {getattr(structure, name).offset}"
                     for name, _ in structure._fields_]
        self.assertEqual(ours, compile_and_run(program()).splitlines())

    def test_functions(self):
        text = headers()
        for name, (_, *arguments) in _c.FUNCTIONS.items():
            found = re.search(rf"\bditmoe_{name}\(([^;]*)\);", text)
            self.assertIsNotNone(found, name)
            declared = found.group(1).split(",") if found.group(1) != "void" else []
            self.assertEqual([is_pointer(kind) for kind in arguments],
                             ["*" in argument for argument in declared], name)

    def test_constants(self):
        text = headers()
        for values in (ditmoe.Code, ditmoe.Measure):
            for value in values:
                self.assertRegex(text, rf"DITMOE_{value.name} = {value.value}\b")
        halves = re.search(r"enum ditmoe_half \{(.*?)\}", text).group(1).replace(" ", "").split(",")
        self.assertEqual(halves, [f"DITMOE_{half.name}" for half in sorted(ditmoe.Half)] +
                         ["DITMOE_HALVES"])
        codes = re.search(r"enum ditmoe_status \{(.*?)\};", text, re.S).group(1)
        self.assertEqual(len(re.findall(r"DITMOE_\w+ =", codes)), len(ditmoe.Code) + 1)
        self.assertIn(f'#define DITMOE_VERSION "{_c.VERSION}"', text)


if __name__ == "__main__":
    unittest.main()
