"""ditmoe: sample mixture-of-experts diffusion transformers, from Python.

    import ditmoe
    model, decoder = ditmoe.Model("model.pth"), ditmoe.Decoder("vae")
    samples = model.sample([0, 1, 2], decoder=decoder, seed=7, steps=20, cfg_scale=2)
    samples.pixels      # uint8 [3, H, W, 3]

Options have the names and meanings of the members in ditmoe.h, ditmoe_eval.h and ditmoe_routing.h.
What is opened is released by close(), by `with`, or with the object. A Features object belongs to
one thread at a time; models and decoders may be shared."""

import ctypes
import enum
import json
import os
import types
import warnings
import weakref
from typing import NamedTuple, Optional

import numpy as np

from . import _c

_library = _c.load()


class Code(enum.IntEnum):
    """enum ditmoe_status, which are also the exit codes of the programs."""
    FAILED = 1
    USAGE = 2
    FORMAT = 3
    MISMATCH = 4
    NOMEM = 5
    OUTPUT = 6
    NONFINITE = 7
    DEVICE = 8
    INCOMPLETE = 9
    CANCELLED = 130


class Measure(enum.IntFlag):
    """What is compared between two sets: ditmoe_eval.h."""
    FRECHET = 1
    SPATIAL = 2
    INCEPTION = 4
    PRECISION = 8
    KERNEL = 16


class Half(enum.IntEnum):
    """Halves of guidance, in routing tables."""
    CONDITIONAL = 0
    UNCONDITIONAL = 1


class Error(Exception):
    """A call failed; str() is the library's line, code one of Code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = Code(code)


class _Context:
    """Error text and warnings of calls; the library lets one thread at a time use it."""

    def __init__(self):
        lines = self._lines = []
        self._hooks = _c.hooks(warn=_c.WARN(lambda _, line: lines.append(line.decode())))
        handle = _library.ditmoe_ctx_create(self._hooks)
        if not handle:
            raise MemoryError("ditmoe: no memory for a context")
        self._handle = handle
        weakref.finalize(self, _library.ditmoe_ctx_destroy, handle)

    def call(self, name, *arguments):
        status = getattr(_library, "ditmoe_" + name)(self._handle, *arguments)
        while self._lines:
            warnings.warn(self._lines.pop(0), stacklevel=4)
        if status:
            raise Error(status, _library.ditmoe_errmsg(self._handle).decode())


def _release(name, handle, context):  # the context is there until after the call
    getattr(_library, "ditmoe_" + name)(handle)


class _Owned:
    """A handle of the library, released once."""

    def _own(self, opener, closer, *arguments):
        context, handle = _Context(), ctypes.c_void_p()
        try:
            context.call(opener, *arguments, ctypes.byref(handle))
        finally:  # a warning may have been raised
            if handle:
                self._handle = handle
                self.close = weakref.finalize(self, _release, closer, handle, context)
        return self

    def _get(self):
        if not self.close.alive:
            raise ValueError(f"this {type(self).__name__} has been closed")
        return self._handle

    def _info(self, name):
        out = getattr(_c, name)()
        getattr(_library, "ditmoe_" + name)(self._get(), out)
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _set_members(structure, options):
    names = {name for name, kind in structure._fields_
             if kind in (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_int64,
                         ctypes.c_uint64, ctypes.c_double)}
    for name, value in options.items():
        if name not in names:
            raise TypeError(f"no option {name!r}; there are {', '.join(sorted(names))}")
        setattr(structure, name, value.encode() if isinstance(value, str) else value)
        if isinstance(value, int) and getattr(structure, name) != value:  # ctypes only cuts it
            raise OverflowError(f"{name} cannot be {value}")
    return structure


def _request(options):
    if "count" in options:
        raise TypeError("count is the number of labels, no option")
    return _set_members(_library.ditmoe_request_default(), options)


def _labels(values):
    labels = np.ascontiguousarray(values, np.int32)
    if labels.ndim != 1:
        raise ValueError(f"labels have {labels.ndim} dimensions, not 1")
    if (labels != np.asarray(values)).any():
        raise ValueError("labels are no whole numbers of 32 bits")
    return labels


def _namespace(structure):
    values = {}
    for name, _ in structure._fields_:
        value = getattr(structure, name)
        if not isinstance(value, ctypes._Pointer):
            values[name] = value.decode() if isinstance(value, bytes) else value
    return types.SimpleNamespace(**values)


def _pointer(array, kind):
    return None if array is None else array.ctypes.data_as(ctypes.POINTER(kind))


def _copy(pointer, *shape):
    return np.ctypeslib.as_array(pointer, shape).copy() if pointer else None


def version():
    """Version of the library."""
    return _library.ditmoe_version().decode()


class Samples(NamedTuple):
    latents: np.ndarray  # float32 [N, C, H, W]
    pixels: Optional[np.ndarray]  # uint8 [N, h, w, 3]; None without a decoder, but for models of images


class Model(_Owned):
    """A checkpoint, opened. options: backend, tier, dtype, threads, key, record, plan_only."""

    def __init__(self, path, **options):
        self._own("model_open", "model_close", os.fsencode(path),
                  _set_members(_c.model_options(), options))

    @property
    def info(self):
        return _namespace(self._info("model_info"))

    @property
    def record(self):
        """The checkpoint record (docs/RECORD.md), a dict."""
        return json.loads(_library.ditmoe_model_record(self._get()))

    def class_name(self, label):
        name = _library.ditmoe_model_class_name(self._get(), label)
        return None if name is None else name.decode()

    def routing(self, bins=0, mass=False, unconditional=False, **options):
        """Empty tables for `sample` with the same options."""
        request = _request(options)
        counted = _c.routing_options(bins=bins, mass=mass, unconditional=unconditional)
        return Routing.__new__(Routing)._own("routing_create", "routing_destroy", self._get(),
                                             request, counted)

    def sample(self, labels, decoder=None, noise=None, routing=None, observe=None, **options):
        """One image for each label. noise: float32 [N, C, H, W] to start from. routing: tables
        that count what the routers choose. observe(step, steps, first, latents) is called after
        every step of a batch; what it raises ends the run. options: seed, steps, sampler, cfg_scale
        and the other members of struct ditmoe_request."""
        request, labels = _request(options), _labels(labels)
        info = self.info
        shape = (len(labels), info.channels, request.height or info.size,
                 request.width or info.size)
        if min(shape) < 0:
            raise ValueError(f"latents cannot have the size {shape[2]} x {shape[3]}")
        if noise is not None:
            noise = np.ascontiguousarray(noise, np.float32)
            if noise.shape != shape:
                raise ValueError(f"noise has the shape {noise.shape}, not {shape}")
        latents, pixels = np.empty(shape, np.float32), None
        factor = decoder.info.factor if decoder is not None else info.pixels
        if factor:
            pixels = np.empty((shape[0], shape[2] * factor, shape[3] * factor, 3), np.uint8)
        request.labels, request.count = _pointer(labels, ctypes.c_int32), len(labels)
        request.noise = _pointer(noise, ctypes.c_float)
        request.routing = routing._get() if routing is not None else None
        raised = []
        if observe is not None:
            request.observe = _observer(observe, shape[1:], raised)
        context = _Context()
        session = ctypes.c_void_p()
        try:
            context.call("session_create", self._get(), decoder._get() if decoder else None,
                         request, ctypes.byref(session))
            context.call("sample", session, request, _pointer(latents, ctypes.c_float),
                         _pointer(pixels, ctypes.c_uint8))
        except Error:
            if raised:
                raise raised[0] from None
            raise
        finally:
            _library.ditmoe_session_destroy(session)
        return Samples(latents, pixels)


def _observer(observe, shape, raised):
    def call(_, seen):
        seen = seen.contents
        try:
            observe(seen.step, seen.steps, seen.first, _copy(seen.latents, seen.count, *shape))
        except BaseException as error:  # an exception cannot pass through the library
            raised.append(error)
        return len(raised)
    return _c.OBSERVE(call)


class Decoder(_Owned):
    """Latents to pixels, for Model.sample. tile: latent side of a tile, 0: whole images. options:
    as for Model."""

    def __init__(self, path, tile=0, **options):
        self._own("decoder_open", "decoder_close", os.fsencode(path),
                  _set_members(_c.model_options(), options), tile)

    @property
    def info(self):
        return _namespace(self._info("decoder_info"))


class Features(_Owned):
    """A feature network. resize: "adm" or "pytorch-fid". options: as for Model."""

    def __init__(self, path, resize=None, **options):
        self._own("features_open", "features_close", os.fsencode(path),
                  _set_members(_c.model_options(), options), resize and resize.encode())

    @property
    def info(self):
        return _namespace(self._info("features_info"))

    def run(self, pixels):
        """Features of uint8 [N, H, W, 3]: dict of float32 pool [N, P], spatial [N, S], logits
        [N, L], as far as the network has them."""
        pixels = np.ascontiguousarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [N, H, W, 3]")
        info, count = self.info, len(pixels)
        out = {name: np.empty((count, getattr(info, name)), np.float32)
               for name in ("pool", "spatial", "logits") if getattr(info, name)}
        _Context().call("features_run", self._get(), _pointer(pixels, ctypes.c_uint8),
                        *pixels.shape[:3], *(_pointer(out.get(name), ctypes.c_float)
                                             for name in ("pool", "spatial", "logits")))
        return out


class Set(_Owned):
    """Images of a folder or an .npz, or statistics of an .npz: one side of a comparison. features:
    a Features object, None if nothing has to be computed. options: recompute, recursive, count,
    threads, batch."""

    def __init__(self, path, features=None, measures=Measure.FRECHET, reference=False, **options):
        options = _set_members(_c.set_options(measures=measures, reference=reference), options)
        self._own("set_open", "set_close", os.fsencode(path),
                  features._get() if features else None, options)

    @property
    def info(self):
        return _namespace(self._info("set_info"))


def compare(reference, samples, measures=Measure.FRECHET):
    """Scores of one set against another: frechet, spatial_frechet, inception_score, precision,
    recall, kernel; 0 where measures do not ask for it."""
    out = _c.scores()
    _Context().call("compare", reference._get(), samples._get(), measures, out)
    return _namespace(out)


class Routing(_Owned):
    """Tables of what routers chose (docs/ROUTING.md): of a file, or from Model.routing."""

    def __init__(self, path):
        self._own("routing_read", "routing_destroy", os.fsencode(path))

    @property
    def info(self):
        """Members of struct ditmoe_routing_info; meta is a dict."""
        raw = self._info("routing_info")
        info = _namespace(raw)
        info.meta = json.loads(info.meta) if info.meta else {}
        info.layer = _copy(raw.layer, info.layers)
        info.layer_experts = _copy(raw.layer_experts, info.layers)
        info.bin_step = _copy(raw.bin_step, info.bins + 1)
        info.time = _copy(raw.time, info.steps)
        return info

    def tables(self, half=Half.CONDITIONAL):
        """Copies of the members of struct ditmoe_routing_tables, in the shapes given there; None
        for what is not counted. Unit of the sums of weights: 2**-30."""
        info, out = self.info, _c.routing_tables()
        if not 0 <= half < info.halves:
            raise ValueError(f"half {half} is not counted")
        _library.ditmoe_routing_tables(self._get(), half, out)
        layers, bins, tokens, experts, labels = (info.layers, info.bins, info.tokens, info.experts,
                                                 info.labels)
        shapes = {
            "counts": (layers, bins, tokens, experts), "mass": (layers, bins, tokens, experts),
            "class_counts": (layers, labels, experts), "class_mass": (layers, labels, experts),
            "evaluations": (bins,), "label_evaluations": (labels,),
            "shuffled_positions": (layers, tokens, experts),
            "shuffled_steps": (layers, bins, experts), "shuffled_labels": (layers, labels, experts),
            "kept": (layers, info.steps, 2), "kept_leading": (layers, info.steps, 2),
            "pairs": (layers, experts, experts)}
        return types.SimpleNamespace(**{name: _copy(getattr(out, name), *shape)
                                        for name, shape in shapes.items()})

    def load(self, layer, half=Half.CONDITIONAL, bin=-1):
        """How even the loads of a layer's routed experts are: struct ditmoe_routing_load."""
        info, out = self.info, _c.routing_load()
        if not (0 <= layer < info.layers and 0 <= half < info.halves and -1 <= bin < info.bins):
            raise ValueError(f"no layer {layer}, half {half}, bin {bin} in these tables")
        _library.ditmoe_routing_load(self._get(), half, layer, bin, out, None)
        return _namespace(out)

    def merge(self, other):
        """Adds the sums of other tables, whose images are others."""
        _Context().call("routing_merge", self._get(), other._get())

    def write(self, path, exact=False):
        """An .npz; exact: to be merged later without any rounding."""
        _Context().call("routing_write", self._get(), os.fsencode(path), int(exact))
