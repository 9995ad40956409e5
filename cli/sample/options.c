/* The options of ditmoe-sample. */
#include "cli/sample/sample.h"

#define AT(member)        .field = offsetof(struct sample_settings, member)
#define FLAG              .kind = OPTION_FLAG
#define TEXT(placeholder) .kind = OPTION_TEXT, .argument = placeholder
#define CHOICE(values)    .kind = OPTION_CHOICE, .argument = values
#define INTEGER(from, to) .kind = OPTION_INTEGER, .argument = "N", .low = from, .high = to
#define NUMBER(from, to)  .kind = OPTION_NUMBER, .argument = "X", .low = from, .high = to

enum { MAX_SAMPLES = 100000000, MAX_LABEL = 1 << 30 };

/* clang-format off */
static const struct option table[] = {
  {.name = "model", .aliases = "ckpt", .letter = 'm', AT(model), TEXT("PATH"), .group = "Model",
   .help = "Checkpoint: a PyTorch or safetensors file, an index.json of shards, or a folder. "
           "Else $DITMOE_MODEL, else the one that comes with the programs."},
  {.name = "key", AT(key), TEXT("NAME"), .traits = OPTION_DECIDES,
   .help = "Entry of a training checkpoint, such as ema or model, or what names of tensors begin "
           "with; EMA weights are preferred (docs/FILES.md)."},
  {.name = "vae", .aliases = "vae-path", AT(vae), TEXT("PATH|none"),
   .help = "Decoder: a folder or file; none for latents as they are, and for models of images. "
           "Else $DITMOE_VAE, vae or sd-vae-ft-mse beside the model, or what its record names."},
  {.name = "latents-stats", AT(latents_stats), TEXT("FILE"),
   .help = "Mean and deviation of each channel of the latents, as LightningDiT keeps them in "
           "latents_stats.pt; they become members of the record."},
  {.name = "record", AT(record), TEXT("FILE"),
   .help = "JSON of what the weights do not tell; it overrides the checkpoint's own."},
  {.name = "image-size", AT(image_size), INTEGER(1, 65535),
   .help = "Refuse to run unless both sides of the images are this."},
  {.name = "num-classes", AT(num_classes), INTEGER(1, MAX_LABEL),
   .help = "Refuse to run unless the model has this many classes."},
  {.name = "num-experts", AT(num_experts), INTEGER(0, 65536),
   .help = "Refuse to run unless the model has this many experts."},

  {.name = "kind", AT(kind),
   CHOICE("dit-moe|promoe-tc|promoe-ec|tc-dit|ec-dit|diffmoe|dsmoe|jitmoe|dit"),
   .traits = OPTION_IN_RECORD, .group = "Checkpoint record", .help = "Architecture."},
  {.name = "family", AT(family), TEXT("NAME"), .traits = OPTION_IN_RECORD,
   .help = "Whose model it is, where the tensors of several are alike: dit, sit, repa, ... "
           "(docs/MODELS.md)."},
  {.name = "objective", AT(objective), CHOICE("ddpm|rf"), .traits = OPTION_IN_RECORD,
   .help = "What the model was trained for."},
  {.name = "time-direction", AT(time_direction), CHOICE("0to1|1to0"), .traits = OPTION_IN_RECORD,
   .help = "Of a flow: whether time 0 is noise and 1 data (0to1), or 1 is noise."},
  {.name = "heads", AT(heads), INTEGER(1, 65536), .traits = OPTION_IN_RECORD,
   .help = "Attention heads."},
  {.name = "top-k", .aliases = "num-experts-per-tok", AT(top_k), INTEGER(1, 4096),
   .traits = OPTION_IN_RECORD, .help = "Experts for each token."},
  {.name = "time-scale", AT(time_scale), NUMBER(1e-6, 1e6), .traits = OPTION_IN_RECORD,
   .help = "The model is fed this times t."},
  {.name = "frequency-shift", AT(frequency_shift), NUMBER(0, 100), .traits = OPTION_IN_RECORD,
   .help = "Of the time embedding: 0, or 1 for diffusers."},
  {.name = "norm-eps", AT(norm_eps), NUMBER(1e-12, 1), .traits = OPTION_IN_RECORD,
   .help = "Epsilon of the layer norms."},
  {.name = "norm2-eps", AT(norm2_eps), NUMBER(1e-12, 1), .traits = OPTION_IN_RECORD,
   .help = "Epsilon of a block's second norm."},
  {.name = "qk-norm-eps", AT(qk_norm_eps), NUMBER(1e-12, 1), .traits = OPTION_IN_RECORD,
   .help = "Epsilon of the norms of q and k."},
  {.name = "uncond-label", AT(uncond_label), INTEGER(0, MAX_LABEL), .traits = OPTION_IN_RECORD,
   .help = "ProMoE: label of the unconditional expert."},
  {.name = "null-label", AT(null_label), INTEGER(0, MAX_LABEL), .traits = OPTION_IN_RECORD,
   .help = "Row of the class table that is the empty class."},
  {.name = "router-weight-mode", AT(router_weight_mode), CHOICE("identity|sigmoid|softmax"),
   .traits = OPTION_IN_RECORD, .help = "ProMoE: scores to weights."},
  {.name = "capacity", AT(capacity), NUMBER(0, 4096), .traits = OPTION_IN_RECORD,
   .help = "Expert choice: tokens of an expert, as a multiple of the fair share."},
  {.name = "latent-scale", AT(latent_scale), NUMBER(1e-6, 1e6), .traits = OPTION_IN_RECORD,
   .help = "Scaling factor of the latents."},
  {.name = "latent-shift", AT(latent_shift), NUMBER(-1e6, 1e6), .traits = OPTION_IN_RECORD,
   .help = "Shift of the latents."},

  {.name = "class", .letter = 'c', AT(classes), .kind = OPTION_LIST,
   .argument = "ID|NAME|WNID[,...]", .group = "Classes",
   .help = "Classes to draw; may be repeated. Default: all; without --num-samples eight of "
           "ImageNet."},
  {.name = "class-file", AT(class_file), TEXT("FILE"), .help = "Classes, one for each line."},
  {.name = "num-samples", .aliases = "num-fid-samples", .letter = 'n', AT(num_samples),
   INTEGER(1, MAX_SAMPLES), .help = "Images of the run. Default: one for each class."},
  {.name = "label-sampling", AT(label_sampling), CHOICE("list|equal|random"),
   .help = "Over the classes in turn, in equal runs, or at random by (seed, index). Default: list; "
           "random if --num-samples is given and no class."},
  {.name = "index-range", AT(index_range), .kind = OPTION_SPAN, .argument = "A:B", .low = 0,
   .high = MAX_SAMPLES, .help = "Make only the images A to B-1 of the run."},
  {.name = "allow-null", AT(allow_null), FLAG, .help = "Permit the empty class."},
  {.name = "list-classes", AT(list_classes), .kind = OPTION_OPTIONAL, .argument = "REGEX",
   .help = "Print ids and names, and end."},

  {.name = "seed", .aliases = "global-seed", .letter = 's', AT(seed), .kind = OPTION_SEED,
   .argument = "N", .preset = "0", .traits = OPTION_DECIDES, .group = "Sampling",
   .help = "An image depends on (seed, index) alone. -1 draws a seed and prints it."},
  {.name = "preset", AT(preset), TEXT("NAME"), .traits = OPTION_DECIDES,
   .help = "The settings of a published result (docs/PRESETS.md); other options win over it."},
  {.name = "list-presets", AT(list_presets), FLAG,
   .help = "Print their names, settings and results, and end."},
  {.name = "sampler", .aliases = "sampling-method", AT(sampler),
   CHOICE("ddpm|ddim|dpmpp-2m|euler|heun|midpoint|sde|sde-heun"),
   .synonyms = "rf=euler rf-euler=euler flow-euler=euler rf-heun=heun dpm++2m=dpmpp-2m "
               "euler-maruyama=sde sde-euler-maruyama=sde",
   .traits = OPTION_DECIDES,
   .help = "Default: that of its scheduler file, or what the model was trained for."},
  {.name = "steps", .aliases = "num-sampling-steps", AT(steps), INTEGER(1, 1000),
   .traits = OPTION_DECIDES,
   .help = "Default: the family's, else 250 for ddpm and sde, 50 for the others. SiT counts the "
           "points of the time grid."},
  {.name = "respacing", AT(respacing), TEXT("LIST"), .traits = OPTION_DECIDES,
   .help = "ddpm and ddim, in place of --steps: ddim25, or steps of each section (10,15,20)."},
  {.name = "cfg-scale", .aliases = "guidance", .letter = 'g', AT(cfg_scale), NUMBER(0, 1000),
   .preset = "4", .traits = OPTION_DECIDES,
   .help = "s of u + s (c - u), classifier-free guidance; 1: none, 0: the empty class."},
  {.name = "cfg-interval", AT(cfg_interval), .kind = OPTION_INTERVAL, .argument = "A:B", .low = 0,
   .high = 1, .traits = OPTION_DECIDES,
   .help = "Guidance only while the progress of the run, 0 to 1, is in [A, B)."},
  {.name = "cfg-times", AT(cfg_times), .kind = OPTION_INTERVAL, .argument = "LOW:HIGH", .low = 0,
   .high = 1, .traits = OPTION_DECIDES,
   .help = "Guidance only while the time of the flow is from LOW to HIGH, as REPA's guidance_low "
           "and guidance_high."},
  {.name = "cfg-channels", AT(cfg_channels), CHOICE("3|all"), .traits = OPTION_DECIDES,
   .help = "Channels that are guided. Default: the model's."},
  {.name = "eta", AT(eta), NUMBER(0, 1), .traits = OPTION_DECIDES, .help = "ddim: share of noise."},
  {.name = "diffusion-form", AT(diffusion_form),
   CHOICE("sigma|constant|sbdm|decreasing|increasing-decreasing"),
   .synonyms = "linear=sigma SBDM=sbdm inccreasing-decreasing=increasing-decreasing",
   .traits = OPTION_DECIDES,
   .help = "sde: how much noise at which time. Default: sigma."},
  {.name = "diffusion-norm", AT(diffusion_norm), NUMBER(1e-6, 1e3), .traits = OPTION_DECIDES,
   .help = "sde: its scale. Default: 1."},
  {.name = "last-step", AT(last_step), CHOICE("mean|tweedie|euler|none"),
   .synonyms = "Mean=mean Tweedie=tweedie Euler=euler None=none", .traits = OPTION_DECIDES,
   .help = "sde: the step without noise at the end. Default: mean."},
  {.name = "last-step-size", AT(last_step_size), NUMBER(1e-6, 0.999), .traits = OPTION_DECIDES,
   .help = "sde: its length. Default: 0.04."},
  {.name = "sample-eps", AT(sample_eps), NUMBER(0, 0.999), .traits = OPTION_DECIDES,
   .help = "sde: share of data at which it begins; sbdm needs one above 0. Default: 0."},
  {.name = "shift", AT(shift), NUMBER(1e-3, 1e3), .traits = OPTION_DECIDES,
   .help = "Rectified flow: time shift. Default: the model's."},
  {.name = "size", AT(size), TEXT("WxH"),
   .help = "Pixels of an image, such as 384x256, for --width and --height."},
  {.name = "width", .letter = 'W', AT(width), INTEGER(1, 65535), .traits = OPTION_DECIDES,
   .help = "Default: what the model was trained at. Other sizes need positions of the sin-cos "
           "formula."},
  {.name = "height", .letter = 'H', AT(height), INTEGER(1, 65535), .traits = OPTION_DECIDES,
   .help = "Likewise."},
  {.name = "fixed-variance", AT(fixed_variance), FLAG, .traits = OPTION_DECIDES,
   .help = "ddpm: ignore a learned variance."},
  {.name = "rng", AT(rng), CHOICE("philox|torch-cpu"), .preset = "philox", .traits = OPTION_DECIDES,
   .help = "Random numbers: by counter, or as torch.manual_seed gives them on a CPU."},
  {.name = "index-block", AT(index_block), INTEGER(1, 65536), .traits = OPTION_DECIDES,
   .help = "Images made together where they depend on each other: DiffMoE and torch-cpu."},

  {.name = "batch-size", .aliases = "per-proc-batch-size", .letter = 'b', AT(batch_size),
   INTEGER(1, 65536), .group = "Execution",
   .help = "Images at a time; changes speed and memory, not the images. Default: chosen."},
  {.name = "dtype", AT(dtype), CHOICE("f32|bf16"), .traits = OPTION_DECIDES,
   .help = "Arithmetic of the products. Default: what the machine does best."},
  {.name = "device", AT(device), TEXT("cpu|cuda"), .preset = "cpu",
   .help = "cuda: the first GPU, as --backend cuda."},
  {.name = "backend", AT(backend), CHOICE("cpu|cuda|ref"), .preset = "cpu",
   .traits = OPTION_DECIDES, .help = "ref: plain loops, slow."},
  {.name = "tier", AT(tier), CHOICE("generic|avx2|avx512|avx512bf16|amx"), .traits = OPTION_DECIDES,
   .help = "Instruction set to use. Default: the machine's best."},
  {.name = "threads", .letter = 't', AT(threads), INTEGER(1, 1024),
   .help = "Default: $DITMOE_THREADS, $OMP_NUM_THREADS, or one for each processor."},
  {.name = "tile", AT(tile), INTEGER(1, 8192), .traits = OPTION_DECIDES,
   .help = "Decode in tiles of this latent side, with less memory."},
  {.name = "dry-run", AT(dry_run), FLAG,
   .help = "Print the memory needed and whether it fits, from the headers of the files, and end."},

  {.name = "output", .letter = 'o', AT(output), TEXT("PATTERN"), .preset = "./", .group = "Outputs",
   .help = "Folder, or names such as out_%06d.png, or one FILE.npz; in a folder 000000.png and so "
           "on. A folder that ends in / is made."},
  {.name = "format", AT(format), CHOICE("png|jpg|bmp|tga"),
   .help = "Of images in a folder. Default: png."},
  {.name = "grid", AT(grid), TEXT("FILE"), .help = "Also write the first images side by side."},
  {.name = "grid-samples", AT(grid_samples), INTEGER(1, 1000000),
   .help = "Images of the grid, whole index blocks. Default: all, at most 100."},
  {.name = "grid-cols", AT(grid_columns), INTEGER(1, 1000),
   .help = "Columns of the grid. Default: about square."},
  {.name = "latents", AT(latents), TEXT("FILE"),
   .help = "Also write the final latents and labels as safetensors."},
  {.name = "routing-dump", AT(routing_dump), TEXT("FILE.npz"), .traits = OPTION_OF_RUN,
   .group = "Routing",
   .help = "Count which experts work on which position, step and class; for ditmoe-heatmap."},
  {.name = "routing-mass", AT(routing_mass), FLAG, .traits = OPTION_OF_RUN,
   .help = "Also sum the weights of the gate."},
  {.name = "routing-uncond", AT(routing_uncond), FLAG, .traits = OPTION_OF_RUN,
   .help = "Also count the unconditional half of guidance."},
  {.name = "routing-bins", AT(routing_bins), INTEGER(1, 10000), .traits = OPTION_OF_RUN,
   .help = "Count the steps in so many bins. Default: each alone."},
  {.name = "routing-trace", AT(routing_trace), TEXT("FILE"), .traits = OPTION_OF_RUN,
   .help = "Write every choice of every token; about 40 kB an image and step for DiT-MoE-S/2."},
  {.name = "routing-scores", AT(routing_scores), FLAG, .traits = OPTION_OF_RUN,
   .help = "With what the router compared, for every expert."},

  {.name = "show", AT(show), FLAG, .help = "Draw the images in the terminal."},
  {.name = "zoom", AT(zoom), INTEGER(1, 16), .help = "Enlarge them there. Default: 1."},
  {.name = "disable-image-metadata", AT(disable_image_metadata), FLAG,
   .help = "Leave the settings out of PNG files."},
  {.name = "reproduce", AT(reproduce), TEXT("IMAGE"),
   .help = "Take all settings from a PNG and make it again."},
  {.name = "force", AT(force), FLAG,
   .help = "Replace files and runs; use a sampler of the other objective; with --reproduce: use "
           "another model, let options win over the image."},

  {.name = "resume", AT(resume), FLAG, .group = "Runs",
   .help = "Go on with the run that is there: check its files, make what is missing."},
  {.name = "rank", AT(rank), INTEGER(0, 65535),
   .help = "Number of this process among --ranks. Default: from OpenMPI, PMI, SLURM or torchrun."},
  {.name = "ranks", AT(ranks), INTEGER(1, 65536),
   .help = "Processes that share the run, each with a part of the indices. Default: 1."},
  {.name = "rank-timeout", AT(rank_timeout), INTEGER(0, 86400), .preset = "120",
   .help = "Seconds that a rank has to appear before it counts as lost."},

  {.name = "progress", AT(progress), CHOICE("auto|bar|line|json|none"), .preset = "auto",
   .group = "Messages",
   .help = "On standard error; a bar on a terminal, lines elsewhere."},
};
/* clang-format on */

const struct program sample_program = {
    .name = "ditmoe-sample",
    .summary = "sample images from mixture-of-experts diffusion transformers",
    .about =
        "Draws class-conditional images from DiT-MoE, ProMoE, TC-DiT, EC-DiT, DiffMoE and dense "
        "DiT\n"
        "checkpoints. Names of written files go to standard output, everything else to standard\n"
        "error. PNG files carry the settings; beside the images, run.json has those of the run "
        "and\n"
        "run.journal says which files are complete, for --resume.\n"
        "\n"
        "The variables DITMOE_MODEL, DITMOE_VAE and DITMOE_THREADS stand in for --model, --vae "
        "and\n"
        "--threads. NO_COLOR and CI are honoured. The first SIGINT or SIGTERM ends the run after\n"
        "the batch at hand, the second at once.",
    .options = table,
    .count = sizeof table / sizeof table[0],
    .settings_size = sizeof(struct sample_settings),
};
