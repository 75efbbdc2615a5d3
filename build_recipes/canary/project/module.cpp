// A module of Python's stable interface without functions, as vLLM's extensions are.
#include <Python.h>

PyMODINIT_FUNC PyInit__canary() {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_canary", nullptr, 0, nullptr};
  return PyModule_Create(&definition);
}
