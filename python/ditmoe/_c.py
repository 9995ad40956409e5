"""The public headers in ctypes: structures, functions, the library. Names are those of the headers
without `ditmoe_`; a member or a function means what is written there. tests/test_layout.py holds
the layouts against the compiler's."""

import ctypes
import os
from ctypes import (CFUNCTYPE, POINTER, c_char, c_char_p, c_double, c_float, c_int, c_int32,
                    c_int64, c_uint8, c_uint32, c_uint64, c_uint, c_void_p)

VERSION = "0.1.0"  # of the headers that this file follows

WARN = CFUNCTYPE(None, c_void_p, c_char_p)


class hooks(ctypes.Structure):
    _fields_ = [("user", c_void_p), ("alloc", c_void_p), ("release", c_void_p), ("warn", WARN)]


class model_options(ctypes.Structure):
    _fields_ = [("backend", c_char_p), ("tier", c_char_p), ("dtype", c_char_p), ("threads", c_int),
                ("key", c_char_p), ("record", c_char_p), ("plan_only", c_int)]


class model_info(ctypes.Structure):
    _fields_ = [(name, c_char_p) for name in
                "kind family family_why objective backend tier dtype".split()]
    _fields_ += [(name, c_int) for name in
                 "channels size patch width depth heads num_classes classes_used null_label experts "
                 "top_k batch_coupled learned_variance qk_norm pixels ignored_tensors".split()]
    _fields_ += [("latent_scale", c_double), ("parameters", c_uint64), ("weight_bytes", c_uint64)]


class decoder_info(ctypes.Structure):
    _fields_ = [("kind", c_char_p), ("names", c_char_p), ("latent_channels", c_int),
                ("factor", c_int), ("scale", c_double), ("shift", c_double), ("statistics", c_int)]


class observation(ctypes.Structure):
    _fields_ = [("step", c_int), ("steps", c_int), ("first", c_int64), ("count", c_int64),
                ("latents", POINTER(c_float))]


OBSERVE = CFUNCTYPE(c_int, c_void_p, POINTER(observation))


class request(ctypes.Structure):
    _fields_ = [("labels", POINTER(c_int32)), ("count", c_int64), ("first_index", c_int64),
                ("height", c_int), ("width", c_int), ("seed", c_uint64), ("sampler", c_char_p),
                ("steps", c_int), ("respacing", c_char_p), ("cfg_scale", c_double),
                ("cfg_from", c_double), ("cfg_to", c_double), ("cfg_times", c_int),
                ("cfg_channels", c_int), ("eta", c_double), ("diffusion_form", c_char_p),
                ("diffusion_norm", c_double), ("last_step", c_char_p),
                ("last_step_size", c_double), ("sample_eps", c_double), ("shift", c_double),
                ("batch", c_int), ("block", c_int), ("rng", c_char_p), ("fixed_variance", c_int),
                ("force", c_int), ("noise", POINTER(c_float)), ("routing", c_void_p),
                ("user", c_void_p), ("observe", OBSERVE)]


class features_info(ctypes.Structure):
    _fields_ = [("kind", c_char_p), ("name", c_char_p), ("defines_fid", c_int),
                ("resize", c_char_p), ("side", c_int), ("pool", c_int), ("spatial", c_int),
                ("logits", c_int), ("backend", c_char_p), ("tier", c_char_p), ("dtype", c_char_p),
                ("sha256", c_char * 65)]


class set_options(ctypes.Structure):
    _fields_ = [("measures", c_uint), ("reference", c_int), ("recompute", c_int),
                ("recursive", c_int), ("count", c_int64), ("threads", c_int), ("batch", c_int),
                ("user", c_void_p), ("observe", c_void_p)]


class set_info(ctypes.Structure):
    _fields_ = [("kind", c_char_p), ("statistics", c_char_p), ("images", c_int64),
                ("jpeg", c_int64), ("sizes", c_int64), ("width", c_int), ("height", c_int),
                ("sha256", c_char * 65)]


class scores(ctypes.Structure):
    _fields_ = [(name, c_double) for name in
                "frechet spatial_frechet clipped spatial_clipped inception_score precision recall "
                "kernel".split()]


class routing_options(ctypes.Structure):
    _fields_ = [("bins", c_int), ("mass", c_int), ("unconditional", c_int), ("user", c_void_p),
                ("other_label", c_void_p)]


class routing_info(ctypes.Structure):
    _fields_ = [(name, c_int) for name in
                "layers bins tokens experts labels steps side top_k uncond_expert "
                "null_label".split()]
    _fields_ += [("layer", POINTER(c_int32)), ("layer_experts", POINTER(c_int32)),
                 ("bin_step", POINTER(c_int32)), ("time", POINTER(c_double)), ("halves", c_int),
                 ("mass", c_int), ("images", c_int64), ("meta", c_char_p)]


class routing_tables(ctypes.Structure):
    _fields_ = [("counts", POINTER(c_uint32)), ("mass", POINTER(c_int64)),
                ("class_counts", POINTER(c_uint64)), ("class_mass", POINTER(c_int64))]
    _fields_ += [(name, POINTER(c_uint64)) for name in
                 "evaluations label_evaluations shuffled_positions shuffled_steps shuffled_labels "
                 "kept kept_leading pairs".split()]


class routing_load(ctypes.Structure):
    _fields_ = [(name, c_double) for name in
                "tokens largest smallest variation entropy evenness".split()]
    _fields_ += [("experts", c_int), ("dead", c_int)]


STRUCTURES = (hooks, model_options, model_info, decoder_info, observation, request, features_info,
              set_options, set_info, scores, routing_options, routing_info, routing_tables,
              routing_load)

_out = POINTER(c_void_p)
_bytes = POINTER(c_uint8)
_floats = POINTER(c_float)

# name: result, arguments. A handle is a c_void_p, a status a c_int.
FUNCTIONS = {
    "version": (c_char_p,),
    "ctx_create": (c_void_p, POINTER(hooks)),
    "ctx_destroy": (None, c_void_p),
    "errmsg": (c_char_p, c_void_p),
    "model_open": (c_int, c_void_p, c_char_p, POINTER(model_options), _out),
    "model_close": (None, c_void_p),
    "model_info": (None, c_void_p, POINTER(model_info)),
    "model_class_name": (c_char_p, c_void_p, c_int),
    "model_record": (c_char_p, c_void_p),
    "decoder_open": (c_int, c_void_p, c_char_p, POINTER(model_options), c_int, _out),
    "decoder_close": (None, c_void_p),
    "decoder_info": (None, c_void_p, POINTER(decoder_info)),
    "request_default": (request,),
    "session_create": (c_int, c_void_p, c_void_p, c_void_p, POINTER(request), _out),
    "session_destroy": (None, c_void_p),
    "sample": (c_int, c_void_p, c_void_p, POINTER(request), _floats, _bytes),
    "features_open": (c_int, c_void_p, c_char_p, POINTER(model_options), c_char_p, _out),
    "features_close": (None, c_void_p),
    "features_info": (None, c_void_p, POINTER(features_info)),
    "features_run": (c_int, c_void_p, c_void_p, _bytes, c_int, c_int, c_int, _floats, _floats,
                     _floats),
    "set_open": (c_int, c_void_p, c_char_p, c_void_p, POINTER(set_options), _out),
    "set_close": (None, c_void_p),
    "set_info": (None, c_void_p, POINTER(set_info)),
    "compare": (c_int, c_void_p, c_void_p, c_void_p, c_uint, POINTER(scores)),
    "routing_create": (c_int, c_void_p, c_void_p, POINTER(request), POINTER(routing_options), _out),
    "routing_destroy": (None, c_void_p),
    "routing_info": (None, c_void_p, POINTER(routing_info)),
    "routing_tables": (None, c_void_p, c_int, POINTER(routing_tables)),
    "routing_load": (None, c_void_p, c_int, c_int, c_int, POINTER(routing_load),
                     POINTER(c_double)),
    "routing_merge": (c_int, c_void_p, c_void_p, c_void_p),
    "routing_write": (c_int, c_void_p, c_void_p, c_char_p, c_int),
    "routing_read": (c_int, c_void_p, c_char_p, _out),
}


def _find():
    if os.environ.get("DITMOE_LIBRARY"):
        return os.environ["DITMOE_LIBRARY"]
    inside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libditmoe.so")
    return inside if os.path.exists(inside) else "libditmoe.so.0"


def load():
    """The library, its functions typed. ImportError if it or a function is missing, or if its
    interface is another."""
    path = _find()
    try:
        library = ctypes.CDLL(path)
        for name, (result, *arguments) in FUNCTIONS.items():
            function = getattr(library, "ditmoe_" + name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise ImportError(f"ditmoe: {error}; $DITMOE_LIBRARY names the library") from None
    version = library.ditmoe_version().decode()
    if version.split(".")[:2] != VERSION.split(".")[:2]:
        raise ImportError(f"ditmoe: {path} is version {version}, this package is for {VERSION}")
    return library
