"""The package on the model that comes with the programs. $DITMOE_SOURCE is the tree, $DITMOE_BIN the
programs, $DITMOE_FIXTURES the fixtures of the C tests."""

import gc
import os
import subprocess
import sys
import tempfile
import threading
import unittest
import unittest.mock
import warnings

import ditmoe
import numpy as np

ASSETS = os.path.join(os.environ["DITMOE_SOURCE"], "assets", "default")
MODEL, VAE = os.path.join(ASSETS, "model.pth"), os.path.join(ASSETS, "vae")
FIXTURES = os.environ["DITMOE_FIXTURES"]
INCEPTION = os.path.join(FIXTURES, "inception", "pt_inception_random.pth")
IMAGES = os.path.join(FIXTURES, "jitmoe", "jitmoe_tiny", "checkpoint-last.pth")
FEW = {"steps": 3, "cfg_scale": 2, "seed": 5}


class Sampling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model, cls.decoder = ditmoe.Model(MODEL), ditmoe.Decoder(VAE)

    def test_same_pixels_as_the_program(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.npz")
            subprocess.run([os.path.join(os.environ["DITMOE_BIN"], "ditmoe-sample"), "-m", MODEL,
                            "-c", "3,8,0", "--steps", "3", "--cfg-scale", "2", "--seed", "5",
                            "-o", path], check=True, capture_output=True)
            with np.load(path) as run:
                expected = run["arr_0"]
        samples = self.model.sample([3, 8, 0], self.decoder, **FEW)
        np.testing.assert_array_equal(samples.pixels, expected)
        self.assertGreater(samples.pixels.std(), 10)
        # Image i depends on its index alone; another seed is another image.
        last = self.model.sample([0], self.decoder, first_index=2, **FEW)
        np.testing.assert_array_equal(last.pixels[0], expected[2])
        np.testing.assert_array_equal(last.latents[0], samples.latents[2])
        other = self.model.sample([3, 8, 0], **{**FEW, "seed": 6})
        self.assertIsNone(other.pixels)
        self.assertFalse((other.latents == samples.latents).any())

    def test_info_and_record(self):
        info = self.model.info
        self.assertEqual((info.kind, info.objective, info.channels, info.size, info.depth),
                         ("promoe-tc", "rf", 4, 8, 8))
        self.assertEqual(self.model.record["classes_used"], 10)
        self.assertEqual(self.model.class_name(9), "ankle boot")
        self.assertIsNone(self.model.class_name(-1))
        self.assertEqual(self.decoder.info.latent_channels, 4)
        self.assertEqual(ditmoe.version(), ditmoe._c.VERSION)

    def test_noise(self):
        noise = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
        first = self.model.sample([1, 1], noise=noise, steps=2)
        again = self.model.sample([1, 1], noise=noise.astype(np.float64)[::-1], steps=2)
        np.testing.assert_array_equal(first.latents, again.latents[::-1])
        with self.assertRaisesRegex(ValueError, r"\(2, 4, 8, 8\), not \(3, 4, 8, 8\)"):
            self.model.sample([1, 1, 1], noise=noise)

    def test_observe(self):
        seen = []
        samples = self.model.sample([1, 2], observe=lambda *step: seen.append(step), **FEW)
        self.assertEqual([step[:3] for step in seen], [(1, 3, 0), (2, 3, 0), (3, 3, 0)])
        np.testing.assert_array_equal(seen[-1][3], samples.latents)

        def interrupt(step, *_):
            if step == 2:
                raise KeyboardInterrupt
        with self.assertRaises(KeyboardInterrupt):
            self.model.sample([1, 2], observe=interrupt, **FEW)

    def test_model_of_images(self):
        model = ditmoe.Model(IMAGES, record='{"top_k": 2, "routed_scaling_factor": 2.5, '
                                            '"in_context_start": 2}')
        samples = model.sample([1, 2], steps=2)
        levels = np.rint(np.clip(255 * (samples.latents + 1) / 2, 0, 255))
        np.testing.assert_array_equal(samples.pixels, levels.transpose(0, 2, 3, 1))

    def test_threads(self):
        expected = self.model.sample([4], **FEW).latents
        out = [None] * 4

        def sample(place):
            out[place] = self.model.sample([4], **FEW).latents
        threads = [threading.Thread(target=sample, args=(place,)) for place in range(len(out))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for latents in out:
            np.testing.assert_array_equal(latents, expected)

    def test_routing(self):
        options = {"batch": 2, **FEW}
        routing = self.model.routing(bins=3, mass=True, unconditional=True, **options)
        self.model.sample([1, 2, 3], routing=routing, **options)
        info, tables = routing.info, routing.tables()
        self.assertEqual((info.layers, info.bins, info.tokens, info.experts, info.images),
                         (4, 3, 16, 13, 3))
        self.assertEqual(tables.counts.shape, (4, 3, 16, 13))
        self.assertTrue((tables.counts.sum(-1) == 3 * info.top_k).all())
        self.assertEqual(tables.class_counts[0, 2].sum(), 3 * 16)
        self.assertEqual(tables.mass.shape, tables.counts.shape)
        np.testing.assert_array_equal(info.bin_step, [0, 1, 2, 3])
        unconditional = routing.tables(ditmoe.Half.UNCONDITIONAL).counts
        self.assertEqual(unconditional[..., info.uncond_expert].sum(), unconditional.sum())
        load = routing.load(0)
        self.assertEqual((load.experts, load.tokens), (12, 3 * 3 * 16))
        with self.assertRaisesRegex(ValueError, "no layer 4"):
            routing.load(4)
        more = self.model.routing(bins=3, mass=True, unconditional=True, **options)
        self.model.sample([1], routing=more, first_index=3, **options)
        routing.merge(more)
        with self.assertRaises(ditmoe.Error) as caught:
            routing.merge(more)
        self.assertEqual(caught.exception.code, ditmoe.Code.MISMATCH)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "routing.npz")
            routing.write(path, exact=True)
            back = ditmoe.Routing(path)
        np.testing.assert_array_equal(back.tables().counts, routing.tables().counts)
        self.assertEqual(back.info.images, 4)


class Evaluation(unittest.TestCase):
    def test_statistics(self):
        with tempfile.TemporaryDirectory() as folder:
            sets = []
            for name, mean in ("a", 0.0), ("b", 3.0):
                path = os.path.join(folder, name + ".npz")
                np.savez(path, mu=np.full(2048, mean), sigma=np.eye(2048))
                sets.append(ditmoe.Set(path))
        self.assertEqual(sets[0].info.kind, "statistics")
        self.assertAlmostEqual(ditmoe.compare(*sets).frechet, 9 * 2048, places=4)

    def test_images(self):
        pixels = np.random.default_rng(1).integers(0, 256, (2, 6, 32, 32, 3), np.uint8)
        measures = ditmoe.Measure.KERNEL | ditmoe.Measure.PRECISION
        network = ditmoe.Features(INCEPTION, threads=1)
        self.assertEqual(network.info.name, "random-inception")
        x, y = (network.run(images)["pool"].astype(np.float64) for images in pixels)
        self.assertEqual(x.shape, (6, 2048))
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, name) for name in ("a.npz", "b.npz")]
            for path, images in zip(paths, pixels):
                np.savez(path, images)
            reference = ditmoe.Set(paths[0], network, measures, reference=True)
            samples = ditmoe.Set(paths[1], network, measures)
            with self.assertRaises(ditmoe.Error) as caught:
                ditmoe.Set(paths[0])
        self.assertEqual(caught.exception.code, ditmoe.Code.USAGE)
        self.assertEqual((samples.info.kind, samples.info.images), ("npz", 6))
        def kernel(a, b):
            return (a @ b.T / 2048 + 1) ** 3
        def off_diagonal(k):
            return (k.sum() - np.trace(k)) / (6 * 5)
        expected = off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y)) - 2 * kernel(x, y).mean()
        found = ditmoe.compare(reference, samples, measures)
        self.assertAlmostEqual(found.kernel / expected, 1, places=6)
        self.assertEqual(ditmoe.compare(reference, reference, measures).precision, 1)


class Errors(unittest.TestCase):
    def check(self, code, text, call, *arguments, **options):
        with self.assertRaises(ditmoe.Error) as caught:
            call(*arguments, **options)
        self.assertEqual(caught.exception.code, code)
        self.assertIn(text, str(caught.exception))

    def test_errors_of_the_library(self):
        self.check(ditmoe.Code.FORMAT, "/nonexistent", ditmoe.Model, "/nonexistent")
        self.check(ditmoe.Code.FORMAT, "/nonexistent", ditmoe.Decoder, "/nonexistent")
        self.check(ditmoe.Code.FORMAT, "/nonexistent", ditmoe.Features, "/nonexistent")
        self.check(ditmoe.Code.FORMAT, "/nonexistent", ditmoe.Set, "/nonexistent")
        self.check(ditmoe.Code.FORMAT, "/nonexistent", ditmoe.Routing, "/nonexistent")
        with ditmoe.Model(MODEL) as model:
            self.check(ditmoe.Code.USAGE, "sampler", model.sample, [0], sampler="none-such")
            self.check(ditmoe.Code.USAGE, "label", model.sample, [5000], steps=1)

    def test_errors_of_the_caller(self):
        with ditmoe.Model(MODEL) as model:
            with self.assertRaisesRegex(TypeError, "no option 'step'.*steps"):
                model.sample([0], step=3)
            with self.assertRaisesRegex(ValueError, "2 dimensions"):
                model.sample([[0]])
            with self.assertRaisesRegex(ValueError, "whole numbers"):
                model.sample([0.5])
            with self.assertRaisesRegex(ValueError, "whole numbers"):
                model.sample(np.array([2**32]))
            with self.assertRaisesRegex(OverflowError, "steps cannot be 4294967297"):
                model.sample([0], steps=2**32 + 1)
            with self.assertRaisesRegex(OverflowError, "seed cannot be -1"):
                model.sample([0], seed=-1)
            with self.assertRaisesRegex(TypeError, "number of labels"):
                model.sample([0], count=2)
            self.check(ditmoe.Code.USAGE, "number of samples 0", model.sample, [])
        with self.assertRaisesRegex(ValueError, "closed"):
            model.sample([0])
        model.close()

    def test_memory_is_freed(self):
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        for round in range(30):
            ditmoe.Model(MODEL, threads=1)
            gc.collect()
            if round == 9:
                before = resident()
        self.assertLess(resident() - before, 10 * 2**20)  # one model alone takes more

    def test_warnings_as_errors(self):
        record = '{"scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "other": 1}}'
        with unittest.mock.patch("ditmoe._release", wraps=ditmoe._release) as release:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with self.assertRaisesRegex(UserWarning, '"other"'):
                    ditmoe.Model(MODEL, record=record)
            gc.collect()
        self.assertEqual([call.args[0] for call in release.call_args_list], ["model_close"])

    def test_missing_library(self):
        result = subprocess.run([sys.executable, "-c", "import ditmoe"], capture_output=True,
                                text=True, env={**os.environ, "DITMOE_LIBRARY": "/nonexistent.so"})
        self.assertIn("ImportError: ditmoe: /nonexistent.so", result.stderr)


if __name__ == "__main__":
    warnings.simplefilter("error")
    unittest.main()
