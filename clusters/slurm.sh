#!/bin/bash
# Slurm: Ray on all nodes of one job, the search on the first node; Ray ends with the search.
# 2 nodes x 8 GPUs = 16 workers. Adapt the #SBATCH lines to your cluster; the rest follows from them.
#
# Try it:    sbatch clusters/slurm.sh mine.yaml runs/mine            ($HOME or a project folder on shared storage)
#            evomerge submit mine.yaml --cluster clusters/slurm.sh   checks the file, then prints the command
# Options of `evomerge search` may follow:  sbatch clusters/slurm.sh mine.yaml runs/mine --candidates 500
# Watch:     tail -F evomerge-JOB.out      evomerge status runs/mine
# Stop:      scancel JOB                   all results are in the run folder; the same sbatch command continues
#
# At its time limit or after preemption, the job is requeued and resumes (--requeue, --resume).
# Tokens: sbatch passes your environment on; export HF_TOKEN before, and never write it into a script.
#SBATCH --job-name=evomerge
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#SBATCH --output=evomerge-%j.out
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: sbatch $0 SEARCH_FILE RUN_FOLDER [OPTIONS OF evomerge search]" >&2
  exit 2
fi
file=$1 run=$2
shift 2

# Activate your environment here if ~/.bashrc does not: source ~/ev/bin/activate, or: module load ...

# Port and folder are derived from the job's number, so that Ray clusters of other users on the same nodes do not collide.
port=$((20000 + SLURM_JOB_ID % 20000))
scratch=/tmp/ray-$SLURM_JOB_ID
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')

# Slurm sends USR1 three minutes before the time limit; requeueing ends this attempt.
trap 'echo "time is nearly over: queued again, to resume"; scontrol requeue "$SLURM_JOB_ID"' USR1

# Any client that reaches a Ray without a token can run code as you, and its ports are open to the network. Ray 2.52 and
# later require the token of this job, which srun passes to all nodes. The dashboard stays off.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
  ray symmetric-run --address "$head_ip:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  --temp-dir="$scratch" --include-dashboard=false --disable-usage-stats \
  -- evomerge search "$file" --out "$run" --address "$head_ip:$port" --resume "$@" &
search=$!

# `wait` returns at each signal while the search may still run; the loop waits until the process has ended.
status=0
wait "$search" || status=$?
while kill -0 "$search" 2>/dev/null; do
  status=0
  wait "$search" || status=$?
done
# ray symmetric-run exits with 0 if Ray itself could not start
if [ "$status" -eq 0 ] && [ ! -e "$run/archive.sqlite" ]; then
  echo "the search never began: see above what Ray says" >&2
  status=1
fi
exit "$status"
