// The k memory cells most alike each query cell, on a CPU, in one pass over the memory and without a matrix of
// similarities. emavos.memory.native_readout compiles this file and calls it.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

constexpr int64_t QUERIES = 32;  // at once: two vectors of AVX-512
constexpr int64_t CELLS = 8;     // at once, so that their sums stay in registers
constexpr float LOWEST = -std::numeric_limits<float>::infinity();

struct Cell {
    float similarity;
    int32_t place;
};

// Puts a cell in the place of the least of a heap, which is its first.
void replace_least(Cell* heap, int64_t size, Cell cell) {
    int64_t at = 0;
    for (int64_t below = 1; below < size; below = 2 * at + 1) {
        if (below + 1 < size && heap[below + 1].similarity < heap[below].similarity) ++below;
        if (heap[below].similarity >= cell.similarity) break;
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = cell;
}

}  // namespace

// query: (queries, channels). keys: (cells, channels). offset: (cells,). best, index: (queries, k), out: the k
// largest of query . key + offset and their cells, in no order; -inf and 0 where there are fewer. All are contiguous.
extern "C" void scan(const float* query, const float* keys, const float* offset, int64_t queries, int64_t cells,
                     int64_t channels, int64_t k, float* best, int64_t* index) {
    std::vector<float> transposed(channels * QUERIES);
    std::vector<Cell> heaps(k * QUERIES);
    for (int64_t first = 0; first < queries; first += QUERIES) {
        const int64_t used = std::min(QUERIES, queries - first);
        std::fill(heaps.begin(), heaps.end(), Cell{LOWEST, 0});
        float least[QUERIES];
        for (int64_t i = 0; i < QUERIES; ++i) {
            least[i] = i < used ? LOWEST : -LOWEST;
            for (int64_t c = 0; c < channels; ++c)
                transposed[c * QUERIES + i] = i < used ? query[(first + i) * channels + c] : 0;
        }
        for (int64_t start = 0; start < cells; start += CELLS) {
            const float* row[CELLS];
            float sums[CELLS][QUERIES];
            for (int64_t n = 0; n < CELLS; ++n) {
                const int64_t cell = std::min(start + n, cells - 1);
                row[n] = keys + cell * channels;
                for (int64_t i = 0; i < QUERIES; ++i) sums[n][i] = offset[cell];
            }
            for (int64_t c = 0; c < channels; ++c)
                for (int64_t n = 0; n < CELLS; ++n)
                    for (int64_t i = 0; i < QUERIES; ++i) sums[n][i] += row[n][c] * transposed[c * QUERIES + i];
            for (int64_t n = 0; n < std::min(CELLS, cells - start); ++n) {
                int any = 0;
                for (int64_t i = 0; i < QUERIES; ++i) any |= sums[n][i] > least[i];
                if (!any) continue;
                for (int64_t i = 0; i < QUERIES; ++i)
                    if (sums[n][i] > least[i]) {
                        Cell* heap = &heaps[i * k];
                        replace_least(heap, k, {sums[n][i], static_cast<int32_t>(start + n)});
                        least[i] = heap->similarity;
                    }
            }
        }
        for (int64_t i = 0; i < used * k; ++i) {
            best[first * k + i] = heaps[i].similarity;
            index[first * k + i] = heaps[i].place;
        }
    }
}
