"""Pretrain a small language model on text: a DeepSeek-style mixture of experts, data-parallel over ranks.

    artesian launch --nproc-per-node 2 examples/pretrain.py --steps 200

It is plain PyTorch with DDP. The lines marked `# artesian` are all it takes for the job to be measured,
and to go on from where it was when a worker dies.
"""

import argparse
import os
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from artesian.formulas.flops import AttentionCount, active_matmul_parameters, training_flops_per_token
from artesian.train import ByteText, Run, join  # artesian
from artesian.train.models import AttentionConfig, Decoder, DecoderConfig, MoEConfig, keep_balanced


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of the whole run")
    parser.add_argument("--batch", type=int, default=16, help="sequences per step, over all ranks")
    parser.add_argument("--context", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--lr", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=20, help="steps until it is reached")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the data")
    parser.add_argument("--dim", type=int, default=192, help="width of the model")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model, the first one dense")
    parser.add_argument("--experts", type=int, default=8, help="routed experts, of which 2 serve a token")
    parser.add_argument(
        "--data",
        default=os.environ.get("ARTESIAN_DATASET"),
        help="folder of text (default: Python's standard library)",
    )
    return parser.parse_args()


def config_of(args: argparse.Namespace) -> DecoderConfig:
    return DecoderConfig(
        dim=args.dim,
        layers=args.layers,
        hidden_dim=args.dim * 8 // 3,
        max_context=args.context,
        attention=AttentionConfig(heads=4, key_heads=2, head_dim=args.dim // 4),
        moe=MoEConfig(routed=args.experts, shared=1, top_k=2, hidden_dim=args.dim * 2 // 3),
    )


def main() -> None:
    args = parse_args()
    member = join()  # artesian: meets the other workers; rank, world size, device
    is_first = member.rank == 0

    # The same weights on every rank.
    torch.manual_seed(args.seed)
    config = config_of(args)
    model = Decoder(config).to(member.device)
    forward: torch.nn.Module = model
    if member.world_size > 1:
        forward = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    keep_balanced(model, optimizer)

    # Linear warm-up, then linear decay to a tenth.
    def rate(step: int) -> float:
        rest = (args.steps - step) / max(1, args.steps - args.warmup)
        return float(min((step + 1) / args.warmup, 0.1 + 0.9 * max(0.0, rest)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    dataset = ByteText(args.data, context=args.context)
    tokens = args.batch // member.world_size * args.context
    flops_per_token = training_flops_per_token(config.shape, args.context, AttentionCount.CAUSAL_HALF)
    dtype = torch.float32 if member.device.type == "cpu" else torch.bfloat16
    if is_first:
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(
            f"{parameters / 1e6:.1f}M parameters, {active_matmul_parameters(config.shape) / 1e6:.1f}M active; "
            f"{len(dataset) * args.context / 1e6:.1f}M tokens in {dataset.folder}; "
            f"{member.world_size} workers on {member.device.type}",
            flush=True,
        )

    with Run.from_env(  # artesian: restores the newest checkpoint, reports, saves
        model=model, optimizer=optimizer, scheduler=scheduler, member=member, dtype=dtype
    ) as run:
        began_s, began_step = time.monotonic(), run.step
        for batch in run.batches(  # artesian: every sample once, also across restarts
            dataset, global_batch=args.batch, steps=args.steps, seed=args.seed
        ):
            with torch.autocast(member.device.type, dtype=torch.bfloat16, enabled=dtype != torch.float32):
                logits = forward(batch[:, :-1])
            loss = F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own hint is missing
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            run.commit(
                loss, tokens=tokens, model_flops=tokens * flops_per_token
            )  # artesian: the step is done
            if is_first and (run.step % 10 == 0 or run.step == args.steps):
                now_s = time.monotonic()
                speed = (run.step - began_step) * args.batch * args.context / (now_s - began_s)
                print(
                    f"step {run.step}/{args.steps}  loss {loss.item():.3f}  tokens/s {speed:,.0f}",
                    flush=True,
                )
                began_s, began_step = now_s, run.step


if __name__ == "__main__":
    main()
