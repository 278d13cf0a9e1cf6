// What the shared library shows to the outside; everything else stays hidden.
#pragma once

#if defined(_WIN32)
#define FFA_EXPORT extern "C" __declspec(dllexport)
#else
#define FFA_EXPORT extern "C" __attribute__((visibility("default")))
#endif
